/* A linear layer in float32: y = x Wᵀ + bias, and what follows it. Needs AVX-512.

   Weights may be float16, which computes the same of half the bytes: a large layer over one row takes as long as they take to come. */

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#ifndef VARIANT
#pragma GCC target("arch=x86-64-v4")
#endif

#include "product.h"

INLINE __m512 weights(const void *from, int64_t place, int float16) {
    if (float16) return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)((const uint16_t *)from + place)));
    return _mm512_loadu_ps((const float *)from + place);
}

/* One strip of outputs of `rows` rows (a constant where it is called), of which `row` is the first. */
INLINE void strip(const product_job *j, int64_t row, const uint8_t *now, int64_t column, int rows, int float16) {
    int64_t inputs = j->layer->inputs, outputs = j->layer->outputs;
    const float *x = (const float *)j->x + row * inputs;
    __m512 sum[ROWS][STRIP / LANES];
    UNROLLED for (int v = 0; v < STRIP / LANES; v++)
        UNROLLED for (int r = 0; r < rows; r++) sum[r][v] = _mm512_loadu_ps(j->layer->bias + column + v * LANES);
    for (int64_t k = 0; k < inputs; k++) {
        __m512 factor[STRIP / LANES];
        UNROLLED for (int v = 0; v < STRIP / LANES; v++) factor[v] = weights(j->layer->values, column * inputs + k * STRIP + v * LANES, float16);
        UNROLLED for (int r = 0; r < rows; r++) {
            __m512 value = _mm512_set1_ps(x[r * inputs + k]);
            UNROLLED for (int v = 0; v < STRIP / LANES; v++) sum[r][v] = _mm512_fmadd_ps(value, factor[v], sum[r][v]);
        }
    }
    UNROLLED for (int v = 0; v < STRIP / LANES; v++) {
        int64_t first = column + v * LANES, count = least(outputs - first, LANES);
        if (count <= 0) break;
        UNROLLED for (int r = 0; r < rows; r++) {
            floats y = (floats)sum[r][v];
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

int VARIANT(float32_linear)(const product_job *j) {
    if (beyond(j) || j->bfloat16) return 1;
    in_tiles(j, tile);
    return 0;
}

int VARIANT(float16_linear)(const product_job *j) {
    if (beyond(j) || j->bfloat16) return 1;
    in_tiles(j, tile_of_float16);
    return 0;
}
#endif
