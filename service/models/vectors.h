/* Vectors of sixteen floats, and what the kernels do with them. They are the compiler's own, so the same code is AVX-512,
   AVX2 or NEON. The files are compiled into a library for each level of x86-64 (pyproject.toml), of which the loader takes the
   processor's; what a level has no instructions for is left out of its library.

   Loops over a block's accumulators are unrolled by name: the compiler otherwise keeps them in memory, and stores each one
   in every step. */

#pragma once

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif
#include <stdint.h>
#include <string.h>

#define LANES 16
#define LINE_BYTES 64 /* of a line of the caches */
/* Rows that share every load, and sums of products over a vector's lanes: as many and as wide as stay in registers. */
#ifdef __AVX512F__
#define BLOCK 4
#define SUM_LANES 16
#else
#define BLOCK 2
#define SUM_LANES 8
#endif

#define UNROLLED _Pragma("GCC unroll 8")

#define INLINE static inline __attribute__((always_inline))

typedef float floats __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t ints __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint32_t words __attribute__((vector_size(4 * LANES), aligned(4), may_alias)); /* of any type, as they lie in memory */
typedef uint16_t halves __attribute__((vector_size(2 * LANES), aligned(2)));
typedef float eight __attribute__((vector_size(32), aligned(4)));
typedef float four __attribute__((vector_size(16), aligned(4)));
typedef float sums __attribute__((vector_size(4 * SUM_LANES), aligned(4)));

INLINE int64_t rounded_up(int64_t count, int64_t to) { return (count + to - 1) / to * to; }

INLINE int64_t padded(int64_t count) { return rounded_up(count, LANES); }

INLINE floats widen(const uint16_t *from, int64_t count) {
    halves narrow = {0};
    memcpy(&narrow, from, 2 * count);
    return (floats)(__builtin_convertvector(narrow, words) << 16);
}

INLINE halves narrowed(floats value) {
#ifdef __AVX512BF16__
    return (halves)_mm512_cvtneps_pbh((__m512)value);
#else
    words bits = (words)value;
    words rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16; /* to nearest, ties to even */
    ints number = value == value;
    return __builtin_convertvector((rounded & (words)number) | (0x7fc0 & ~(words)number), halves);
#endif
}

INLINE void narrow_to(uint16_t *to, floats value, int64_t count) {
    halves narrow = narrowed(value);
    memcpy(to, &narrow, 2 * count);
}

/* The first `bytes` of a vector, at least one; the others are zero. */
INLINE words take(const void *from, int64_t bytes) {
    if (bytes == sizeof(words)) return *(const words *)from;
#ifdef __AVX512BF16__
    return (words)_mm512_maskz_loadu_epi8(~0ULL >> (sizeof(words) - bytes), from);
#else
    words value = {0};
    memcpy(&value, from, bytes);
    return value;
#endif
}

INLINE void put(void *to, words value, int64_t bytes) {
    if (bytes == sizeof(words)) {
        *(words *)to = value;
        return;
    }
#ifdef __AVX512BF16__
    _mm512_mask_storeu_epi8(to, ~0ULL >> (sizeof(words) - bytes), (__m512i)value);
#else
    memcpy(to, &value, bytes);
#endif
}

#define HIGH 0xffff0000u /* of a lane that holds two bfloat16 */

/* sum + x a, lane by lane. In bfloat16 each lane has a pair, and both products are added. */
INLINE floats step(floats sum, words x, words a, int bfloat16) {
    if (!bfloat16) return sum + (floats)x * (floats)a;
#ifdef __AVX512BF16__
    return (floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)a);
#else
    return sum + (floats)(x << 16) * (floats)(a << 16) + (floats)(x & HIGH) * (floats)(a & HIGH);
#endif
}

/* Pairs of a number of `a` and one of `b`, of which there are 32 each: `side` 0 has the first four of every eight, 1 the others. */
INLINE words paired(words a, words b, int side) {
    typedef uint16_t many __attribute__((vector_size(4 * LANES)));
    many x = (many)a, y = (many)b;
#define FOUR(n) n, n + 32, n + 1, n + 33, n + 2, n + 34, n + 3, n + 35
    if (side) return (words)__builtin_shufflevector(x, y, FOUR(4), FOUR(12), FOUR(20), FOUR(28));
    return (words)__builtin_shufflevector(x, y, FOUR(0), FOUR(8), FOUR(16), FOUR(24));
}

/* 32 numbers as bfloat16, in their order, from the sides that `paired` has. */
INLINE words together(floats a, floats b) {
    typedef uint64_t fours __attribute__((vector_size(2 * LANES)));
    return (words)__builtin_shufflevector((fours)narrowed(a), (fours)narrowed(b), 0, 4, 1, 5, 2, 6, 3, 7);
}

/* The first `count` numbers at a place of an array of bfloat16 or float32; the other lanes are zero. */
INLINE floats read(const void *from, int64_t place, int64_t count, int64_t bfloat16) {
    if (bfloat16)
        return count == LANES ? widen((const uint16_t *)from + place, LANES) : widen((const uint16_t *)from + place, count);
    if (count == LANES) return *(const floats *)((const float *)from + place);
    floats value = {0};
    memcpy(&value, (const float *)from + place, 4 * count);
    return value;
}

INLINE void write(void *to, int64_t place, floats value, int64_t count, int64_t bfloat16) {
    if (bfloat16 && count == LANES)
        narrow_to((uint16_t *)to + place, value, LANES);
    else if (bfloat16)
        narrow_to((uint16_t *)to + place, value, count);
    else if (count == LANES)
        *(floats *)((float *)to + place) = value;
    else
        memcpy((float *)to + place, &value, 4 * count);
}

INLINE four quarter(eight v) { return *(four *)&v + *((four *)&v + 1); }

INLINE eight half_of(floats v) { return *(eight *)&v + *((eight *)&v + 1); }

/* sum + v, over as many lanes as sums have. */
INLINE sums folded(sums sum, floats v) {
#ifdef __AVX512F__
    return sum + v;
#else
    return sum + half_of(v);
#endif
}

/* The sums over the lanes of four sums. */
INLINE four totals(sums a, sums b, sums c, sums d) {
#ifdef __AVX512F__
    four p = quarter(half_of(a)), q = quarter(half_of(b)), r = quarter(half_of(c)), s = quarter(half_of(d));
#else
    four p = quarter(a), q = quarter(b), r = quarter(c), s = quarter(d);
#endif
    four pq = __builtin_shufflevector(p, q, 0, 4, 1, 5) + __builtin_shufflevector(p, q, 2, 6, 3, 7);
    four rs = __builtin_shufflevector(r, s, 0, 4, 1, 5) + __builtin_shufflevector(r, s, 2, 6, 3, 7);
    return __builtin_shufflevector(pq, rs, 0, 1, 4, 5) + __builtin_shufflevector(pq, rs, 2, 3, 6, 7);
}

/* The same of a block's rows, those of v[row][0..3] row after row. */
INLINE floats all_totals(sums v[BLOCK][4]) {
#ifndef __AVX512F__
    floats found = {0};
    UNROLLED for (int row = 0; row < BLOCK; row++) ((four *)&found)[row] = totals(v[row][0], v[row][1], v[row][2], v[row][3]);
    return found;
#else /* half of the work of four times four */
#define HALVES(a, b)                                                                                     \
    (__builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +            \
     __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31))
#define QUARTERS(a, b)                                                                                   \
    (__builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +          \
     __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31))
#define PAIRS(a, b)                                                                                      \
    (__builtin_shufflevector(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +          \
     __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31))
#define ONES(a, b)                                                                                       \
    (__builtin_shufflevector(a, b, 0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28, 30) +         \
     __builtin_shufflevector(a, b, 1, 3, 17, 19, 5, 7, 21, 23, 9, 11, 25, 27, 13, 15, 29, 31))
    floats each[4];
    UNROLLED for (int i = 0; i < 4; i++) each[i] = QUARTERS(HALVES(v[0][i], v[1][i]), HALVES(v[2][i], v[3][i]));
    return ONES(PAIRS(each[0], each[1]), PAIRS(each[2], each[3]));
#endif
}

INLINE float total(floats v) {
    four sum = quarter(half_of(v));
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

INLINE floats either(ints mask, floats yes, floats no) { return (floats)((mask & (ints)yes) | (~mask & (ints)no)); }

INLINE float largest(floats v) {
    floats other = __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
    v = either(other > v, other, v);
    other = __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
    v = either(other > v, other, v);
    float a = v[0] > v[1] ? v[0] : v[1], b = v[2] > v[3] ? v[2] : v[3];
    return a > b ? a : b;
}

/* The exponential of numbers that are not positive, to about one unit in the last place (Cephes, expf). */
INLINE floats exponential(floats x) {
    x = either(x < -87.0f, (floats){0} - 87.0f, x);
    ints power = __builtin_convertvector(x * 1.44269504f - 0.5f, ints); /* towards zero, so to the nearest */
    floats whole = __builtin_convertvector(power, floats);
    floats rest = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    floats sum = rest * 1.9875691500e-4f + 1.3981999507e-3f;
    sum = sum * rest + 8.3334519073e-3f;
    sum = sum * rest + 4.1665795894e-2f;
    sum = sum * rest + 1.6666665459e-1f;
    sum = sum * rest + 5.0000001201e-1f;
    return (sum * rest * rest + rest + 1.0f) * (floats)((power + 127) << 23);
}

/* The hyperbolic tangent, to 1e-7. */
INLINE floats tangent(floats x) {
    floats away = either(x < 0, x, -x), e = exponential(away + away), positive = (1.0f - e) / (1.0f + e);
    return either(x < 0, -positive, positive);
}

#define FLAT 5.3f /* from here on the error function of x / √2 is one, in float32 */

/* x Φ(x) to 1e-6. The error function over x is a polynomial in u, which is x² brought to [-1, 1]; it was fitted at Chebyshev's
   points, and has neither a division nor an exponential to wait for. */
INLINE floats gelu(floats x) {
    static const float fitted[] = {
        0.000656924851f, -0.00158507982f, 0.00117933715f, -0.00202465733f, 0.00662165973f,
        -0.0118899103f, 0.0174435843f, -0.0262674019f, 0.0379166678f, -0.0506236143f,
        0.0641497821f, -0.0791748837f, 0.0985288098f, -0.133037105f, 0.266785115f,
    };
    floats inside = either(x > FLAT, (floats){0} + FLAT, either(x < -FLAT, (floats){0} - FLAT, x));
    floats u = inside * inside * (2 / (FLAT * FLAT)) - 1.0f, sum = (floats){0} + fitted[0];
#pragma GCC unroll 16
    for (int i = 1; i < (int)(sizeof fitted / sizeof *fitted); i++) sum = sum * u + fitted[i];
    return x * (sum * inside * 0.5f + 0.5f);
}
