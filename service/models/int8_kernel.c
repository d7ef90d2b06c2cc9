/* A linear layer in int8: y = x Wᵀ + bias, then the low-rank products of every run, and the activation.

   Every row of x is brought to 8 bits by itself, from its least to its largest number, so no row's result depends on the
   rows beside it; every output of W has a scale of its own. A tile of rows goes through everything while it is in a near
   cache. Needs the instruction that adds four products of 8-bit numbers to each 32-bit sum (AVX-512 VNNI). */

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#ifndef VARIANT
#pragma GCC target("arch=x86-64-v4,avx512vnni")
#endif

#include <immintrin.h>
#include <omp.h>

#include "vectors.h"

#define MAX_INPUTS 8192
#define TILE 48   /* rows that one thread takes at a time; lora_tile takes no more than 64 */
#define ROWS 6    /* that share every load of weights: with STRIP columns they fill the registers */
#define STRIP 64
#define GROUP 4   /* inputs that one instruction takes */
#define LARGEST 255
#define WORTH_A_TEAM 4000000 /* multiply-adds below which waking other threads costs more than it saves */

/* What one call works on. Rows of x and y hold bfloat16 or float32 and lie end to end. */
typedef struct {
    void *y;
    const void *x;
    int64_t bfloat16, rows, inputs, outputs, gelu;
    const int8_t *weight;    /* (outputs / STRIP, inputs / GROUP, STRIP, GROUP), rounded up and padded with zeros */
    const float *smoothing;  /* (inputs): what x is multiplied by before it is rounded; W was divided by it */
    const float *scales, *bias; /* (outputs), padded to whole strips */
    const int32_t *sums;     /* likewise: the sum of each output's weights */
    void (*add)(const void *lora, int64_t first, int64_t stop); /* lora_tile, with what it works on; or null */
    const void *lora;
} job;

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

INLINE range round_row(const job *j, int64_t row, uint8_t *to) {
    float line[MAX_INPUTS];
    floats least = {0}, most = {0};
    for (int64_t k = 0; k < j->inputs; k += LANES) {
        int64_t count = j->inputs - k < LANES ? j->inputs - k : LANES;
        floats value = read(j->x, row * j->inputs + k, count, j->bfloat16) * *(const floats *)(j->smoothing + k);
        *(floats *)(line + k) = value;
        least = (floats)_mm512_min_ps((__m512)least, (__m512)value);
        most = (floats)_mm512_max_ps((__m512)most, (__m512)value);
    }
    float low = _mm512_reduce_min_ps((__m512)least), high = _mm512_reduce_max_ps((__m512)most);
    float scale = (high - low) / LARGEST, inverse = scale > 0 ? 1 / scale : 0;
    range found = {scale, (int32_t)(0.5f - low * inverse)};
    __m512i zero = _mm512_set1_epi32(found.zero);
    for (int64_t k = 0; k < j->inputs; k += LANES) {
        __m512i value = _mm512_add_epi32(_mm512_cvtps_epi32((__m512)(*(floats *)(line + k) * inverse)), zero);
        _mm_storeu_si128((__m128i *)(to + k), _mm512_cvtusepi32_epi8(_mm512_max_epi32(value, _mm512_setzero_si512())));
    }
    return found;
}

/* One strip of outputs of `rows` rows (a constant where it is called), of which `row` is the first. */
INLINE void strip(const job *j, int64_t row, const uint8_t *values, const range *ranges, int64_t column, int rows) {
    int64_t groups = (j->inputs + GROUP - 1) / GROUP, width = padded(j->inputs);
    const int8_t *weight = j->weight + column * groups * GROUP;
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
        int64_t first = column + v * LANES, count = j->outputs - first < LANES ? j->outputs - first : LANES;
        if (count <= 0) break;
        floats scales = *(const floats *)(j->scales + first), bias = *(const floats *)(j->bias + first);
        __m512i sums = _mm512_loadu_si512(j->sums + first);
        UNROLLED for (int r = 0; r < rows; r++) {
            __m512i shifted = _mm512_mullo_epi32(sums, _mm512_set1_epi32(ranges[r].zero));
            floats whole = (floats)_mm512_cvtepi32_ps(_mm512_sub_epi32(sum[r][v], shifted));
            floats y = whole * (scales * ranges[r].scale) + bias;
            write(j->y, (row + r) * j->outputs + first, j->gelu ? gelu(y) : y, count, j->bfloat16);
        }
    }
}

/* `count` rows from `first` on, and of their outputs those from `from` to `to`. */
static void tile(const job *j, int64_t first, int64_t count, int64_t from, int64_t to) {
    rounded x;
    int64_t width = padded(j->inputs);
    for (int64_t r = 0; r < count; r++) x.ranges[r] = round_row(j, first + r, x.values + r * width);
    for (int64_t column = from; column < to; column += STRIP) {
        int64_t r = 0;
        for (; r + ROWS <= count; r += ROWS) strip(j, first + r, x.values + r * width, x.ranges + r, column, ROWS);
#define REST(rows) \
    case rows: strip(j, first + r, x.values + r * width, x.ranges + r, column, rows); break;
        switch (count - r) { REST(1) REST(2) REST(3) REST(4) REST(5) }
    }
}

/* The whole batch. Returns 0, or 1 for sizes beyond what the stack is laid out for; nothing is written then. */
int VARIANT(int8_linear)(const job *j) {
    if (j->inputs > MAX_INPUTS) return 1;
    int team = j->rows * j->inputs * j->outputs >= WORTH_A_TEAM;
    int64_t tiles = (j->rows + TILE - 1) / TILE, strips = (j->outputs + STRIP - 1) / STRIP;
    /* A few rows alone do not keep all threads busy: then each takes a part of the outputs, and rounds the rows again. */
    int64_t least = team ? 2 * omp_get_max_threads() : 1, parts = tiles >= least ? 1 : (least + tiles - 1) / tiles;
    int64_t wide = (strips + parts - 1) / parts * STRIP;
#pragma omp parallel for schedule(dynamic, 1) if (team)
    for (int64_t n = 0; n < tiles * parts; n++) {
        int64_t first = n / parts * TILE, stop = first + TILE < j->rows ? first + TILE : j->rows;
        int64_t from = n % parts * wide, to = from + wide < j->outputs ? from + wide : j->outputs;
        tile(j, first, stop - first, from, to);
        if (j->add && parts == 1) j->add(j->lora, first, stop);
    }
    if (!j->add || parts == 1) return 0;
#pragma omp parallel for schedule(dynamic, 1) if (team)
    for (int64_t first = 0; first < j->rows; first += TILE)
        j->add(j->lora, first, first + TILE < j->rows ? first + TILE : j->rows);
    return 0;
}
#endif
