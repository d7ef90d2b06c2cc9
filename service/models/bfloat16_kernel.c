/* A linear layer in bfloat16: y = x Wᵀ + bias, and what follows it.

   Needs the instruction that adds two products of bfloat16 numbers to each 32-bit sum (AVX-512 BF16). */

#ifdef __AVX512BF16__

#include "product.h"

#define GROUP 2 /* inputs that one instruction takes */

/* One strip of outputs of `rows` rows (a constant where it is called), of which `row` is the first. */
INLINE void strip(const product_job *j, int64_t row, const uint8_t *now, int64_t column, int rows) {
    int64_t inputs = j->layer->inputs, outputs = j->layer->outputs;
    const uint16_t *weight = (const uint16_t *)j->layer->values + column * inputs, *x = (const uint16_t *)j->x + row * inputs;
    __m512 sum[ROWS][STRIP / LANES];
    UNROLLED for (int v = 0; v < STRIP / LANES; v++)
        UNROLLED for (int r = 0; r < rows; r++) sum[r][v] = _mm512_loadu_ps(j->layer->bias + column + v * LANES);
    for (int64_t k = 0; k < inputs; k += GROUP) {
        __m512bh factor[STRIP / LANES];
        UNROLLED for (int v = 0; v < STRIP / LANES; v++)
            factor[v] = (__m512bh)_mm512_loadu_si512(weight + k * STRIP + v * LANES * GROUP);
        UNROLLED for (int r = 0; r < rows; r++) {
            int32_t pair;
            memcpy(&pair, x + r * inputs + k, sizeof pair);
            __m512bh value = (__m512bh)_mm512_set1_epi32(pair);
            UNROLLED for (int v = 0; v < STRIP / LANES; v++) sum[r][v] = _mm512_dpbf16_ps(sum[r][v], value, factor[v]);
        }
    }
    UNROLLED for (int v = 0; v < STRIP / LANES; v++) {
        int64_t first = column + v * LANES, count = least(outputs - first, LANES);
        if (count <= 0) break;
        UNROLLED for (int r = 0; r < rows; r++) {
            floats y = (floats)sum[r][v];
            write(j->y, (row + r) * outputs + first, now[r] ? gelu(y) : y, count, 1);
        }
    }
}

static void tile(const product_job *j, int64_t first, int64_t count, int64_t from, int64_t to) {
    uint8_t now[TILE];
    settle(j, first, count, now);
#define STRIPS(rows) strip(j, first + r, now + r, column, rows)
    FOR_EACH_STRIP(count, from, to, STRIPS)
}

int bfloat16_linear(const product_job *j) {
    if (beyond(j) || !j->bfloat16 || j->layer->inputs % GROUP) return 1;
    in_tiles(j, tile, 0);
    return 0;
}
#endif
