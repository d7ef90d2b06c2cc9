/* A linear layer in float32: y = x Wᵀ + bias, and what follows it.

   Weights may be float16, which computes the same of half the bytes: a large layer over one row takes as long as they take to come. */

#ifdef __AVX2__

#include "product.h"

INLINE sums weights(const void *from, int64_t place, int float16) {
    if (!float16) return *(const sums *)((const float *)from + place);
    const uint16_t *halves = (const uint16_t *)from + place;
#ifdef __AVX512F__
    return (sums)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)halves));
#else
    return (sums)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)halves));
#endif
}

/* One strip of outputs of `rows` rows (a constant where it is called), of which `row` is the first. */
INLINE void strip(const product_job *j, int64_t row, const uint8_t *now, int64_t column, int rows, int float16) {
    int64_t inputs = j->layer->inputs, outputs = j->layer->outputs;
    const float *x = (const float *)j->x + row * inputs;
    sums sum[ROWS][STRIP / SUM_LANES];
    UNROLLED for (int v = 0; v < STRIP / SUM_LANES; v++)
        UNROLLED for (int r = 0; r < rows; r++) sum[r][v] = weights(j->layer->bias, column + v * SUM_LANES, 0);
    for (int64_t k = 0; k < inputs; k++) {
        sums factor[STRIP / SUM_LANES];
        UNROLLED for (int v = 0; v < STRIP / SUM_LANES; v++) factor[v] = weights(j->layer->values, column * inputs + k * STRIP + v * SUM_LANES, float16);
        UNROLLED for (int r = 0; r < rows; r++) {
            float value = x[r * inputs + k];
            UNROLLED for (int v = 0; v < STRIP / SUM_LANES; v++) sum[r][v] += value * factor[v];
        }
    }
    UNROLLED for (int v = 0; v < STRIP / LANES; v++) {
        int64_t first = column + v * LANES, count = least(outputs - first, LANES);
        if (count <= 0) break;
        UNROLLED for (int r = 0; r < rows; r++) {
            floats y;
            memcpy(&y, &sum[r][v * LANES / SUM_LANES], sizeof y);
            write(j->y, (row + r) * outputs + first, now[r] ? gelu(y) : y, count, 0);
        }
    }
}

INLINE void strips(const product_job *j, int64_t first, int64_t count, int64_t from, int64_t to, int float16) {
    uint8_t now[TILE];
    settle(j, first, count, now);
#define STRIPS(rows) strip(j, first + r, now + r, column, rows, float16)
    FOR_EACH_STRIP(count, from, to, STRIPS)
}

static void tile(const product_job *j, int64_t first, int64_t count, int64_t from, int64_t to) {
    strips(j, first, count, from, to, 0);
}

static void tile_of_float16(const product_job *j, int64_t first, int64_t count, int64_t from, int64_t to) {
    strips(j, first, count, from, to, 1);
}

const int64_t strip_outputs = STRIP; /* which whoever lays weights out must know */

int float32_linear(const product_job *j) {
    if (beyond(j) || j->bfloat16) return 1;
    in_tiles(j, tile, 0);
    return 0;
}

int float16_linear(const product_job *j) {
    if (beyond(j) || j->bfloat16) return 1;
    in_tiles(j, tile_of_float16, 0);
    return 0;
}
#endif
