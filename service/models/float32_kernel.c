/* A linear layer in float32: y = x Wᵀ + bias, and what follows it. Needs AVX-512. */

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#ifndef VARIANT
#pragma GCC target("arch=x86-64-v4")
#endif

#include "product.h"

/* One strip of outputs of `rows` rows (a constant where it is called), of which `row` is the first. */
INLINE void strip(const product_job *j, int64_t row, const uint8_t *now, int64_t column, int rows) {
    int64_t inputs = j->layer->inputs, outputs = j->layer->outputs;
    const float *weight = (const float *)j->layer->values + column * inputs, *x = (const float *)j->x + row * inputs;
    __m512 sum[ROWS][STRIP / LANES];
    UNROLLED for (int v = 0; v < STRIP / LANES; v++)
        UNROLLED for (int r = 0; r < rows; r++) sum[r][v] = _mm512_loadu_ps(j->layer->bias + column + v * LANES);
    for (int64_t k = 0; k < inputs; k++) {
        __m512 factor[STRIP / LANES];
        UNROLLED for (int v = 0; v < STRIP / LANES; v++) factor[v] = _mm512_loadu_ps(weight + k * STRIP + v * LANES);
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

static void tile(const product_job *j, int64_t first, int64_t count, int64_t from, int64_t to) {
    uint8_t now[TILE];
    settle(j, first, count, now);
#define STRIPS(rows) strip(j, first + r, now + r, column, rows)
    FOR_EACH_STRIP(count, from, to, STRIPS)
}

int VARIANT(float32_linear)(const product_job *j) {
    if (beyond(j) || j->bfloat16) return 1;
    in_tiles(j, tile);
    return 0;
}
#endif
