/* A linear layer in int8: y = x Wᵀ + bias, and what follows it.

   Every row of x is brought to 8 bits by itself, from its least to its largest number, so no row's result depends on the
   rows beside it; every output of W has a scale of its own. A tile of rows goes through everything while it is in a near
   cache. Needs the instruction that adds four products of 8-bit numbers to each 32-bit sum (AVX-512 VNNI). */

#include "jobs.h"

#ifdef HAS_INT8
#pragma GCC target("avx512vnni") /* which not every processor with AVX-512 has */

#include "product.h"

#define GROUP 4 /* inputs that one instruction takes */
#define LARGEST 255

/* A row's numbers are (value - zero) · scale. */
typedef struct {
    float scale;
    int32_t zero;
} range;

/* Rows of x in 8 bits, padded with anything: the weights there are zero. */
typedef struct {
    uint8_t values[TILE * MAX_INPUTS];
    range ranges[TILE];
} rounded;

INLINE range round_row(const product_job *j, int64_t row, uint8_t *to) {
    float line[MAX_INPUTS];
    floats lowest = {0}, highest = {0};
    for (int64_t k = 0; k < j->layer->inputs; k += LANES) {
        int64_t count = least(j->layer->inputs - k, LANES);
        floats value = read(j->x, row * j->layer->inputs + k, count, j->bfloat16) * *(const floats *)(j->layer->smoothing + k);
        *(floats *)(line + k) = value;
        lowest = (floats)_mm512_min_ps((__m512)lowest, (__m512)value);
        highest = (floats)_mm512_max_ps((__m512)highest, (__m512)value);
    }
    float low = _mm512_reduce_min_ps((__m512)lowest), high = _mm512_reduce_max_ps((__m512)highest);
    float scale = (high - low) / LARGEST, inverse = scale > 0 ? 1 / scale : 0;
    range found = {scale, (int32_t)(0.5f - low * inverse)};
    __m512i zero = _mm512_set1_epi32(found.zero);
    for (int64_t k = 0; k < j->layer->inputs; k += LANES) {
        __m512i value = _mm512_add_epi32(_mm512_cvtps_epi32((__m512)(*(floats *)(line + k) * inverse)), zero);
        _mm_storeu_si128((__m128i *)(to + k), _mm512_cvtusepi32_epi8(_mm512_max_epi32(value, _mm512_setzero_si512())));
    }
    return found;
}

/* One strip of outputs of `rows` rows (a constant where it is called), of which `row` is the first. */
INLINE void strip(const product_job *j, int64_t row, const uint8_t *values, const range *ranges, const uint8_t *now, int64_t column, int rows) {
    int64_t groups = (j->layer->inputs + GROUP - 1) / GROUP, width = padded(j->layer->inputs);
    const int8_t *weight = (const int8_t *)j->layer->values + column * groups * GROUP;
    __m512i sum[ROWS][STRIP / LANES] = {{{0}}};
    for (int64_t g = 0; g < groups; g++) {
        __m512i factor[STRIP / LANES];
        UNROLLED for (int v = 0; v < STRIP / LANES; v++)
            factor[v] = _mm512_loadu_si512(weight + (g * STRIP + v * LANES) * GROUP);
        UNROLLED for (int r = 0; r < rows; r++) {
            int32_t group;
            memcpy(&group, values + r * width + g * GROUP, GROUP);
            __m512i value = _mm512_set1_epi32(group);
            UNROLLED for (int v = 0; v < STRIP / LANES; v++) sum[r][v] = _mm512_dpbusd_epi32(sum[r][v], value, factor[v]);
        }
    }
    UNROLLED for (int v = 0; v < STRIP / LANES; v++) {
        int64_t first = column + v * LANES, count = least(j->layer->outputs - first, LANES);
        if (count <= 0) break;
        floats scales = *(const floats *)(j->layer->scales + first), bias = *(const floats *)(j->layer->bias + first);
        __m512i sums = _mm512_loadu_si512(j->layer->sums + first);
        UNROLLED for (int r = 0; r < rows; r++) {
            __m512i shifted = _mm512_mullo_epi32(sums, _mm512_set1_epi32(ranges[r].zero));
            floats whole = (floats)_mm512_cvtepi32_ps(_mm512_sub_epi32(sum[r][v], shifted));
            floats y = whole * (scales * ranges[r].scale) + bias;
            write(j->y, (row + r) * j->layer->outputs + first, now[r] ? gelu(y) : y, count, j->bfloat16);
        }
    }
}

static void tile(const product_job *j, int64_t first, int64_t count, int64_t from, int64_t to) {
    rounded x;
    int64_t width = padded(j->layer->inputs);
    for (int64_t r = 0; r < count; r++) x.ranges[r] = round_row(j, first + r, x.values + r * width);
    uint8_t now[TILE];
    settle(j, first, count, now);
#define STRIPS(rows) strip(j, first + r, x.values + r * width, x.ranges + r, now + r, column, rows)
    FOR_EACH_STRIP(count, from, to, STRIPS)
}

int int8_linear(const product_job *j) {
    if (beyond(j)) return 1;
    in_tiles(j, tile, 0);
    return 0;
}
#endif
