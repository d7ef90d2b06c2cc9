/* Attention over rows that lie end to end: softmax(q kᵀ / √size) v within each row, for each head.

   Rows of a few dozen tokens are too small for a library's matrix products, which want them padded, masked and copied into
   another order first. Here one row's keys and values of one head are read to the stack where they lie, the keys turned
   so that a vector holds one number of as many of them, and its queries go through in blocks. Everything is
   computed in float32, but for products of bfloat16 in tiles (attention_tiles.h). */

#include <omp.h>

#include "jobs.h"

#define MAX_LENGTH 512
#define MAX_SIZE 128
#define WORTH_A_TEAM 1000000 /* multiply-adds below which waking other threads costs more than it saves */
#define AT_ONCE 4            /* heads of a row that one thread takes at a time, where rows are few: else all, which lie side by side */

enum { VALUE = 1, KEY, QUERY }; /* from the last on */

INLINE int64_t vectors(const attention_job *j) { return j->queries ? 2 : 3; }

/* Where one of a token's vectors begins. */
INLINE int64_t vector(const attention_job *j, int64_t token, int64_t which, int64_t head) {
    return (((token + 1) * vectors(j) - which) * j->heads + head) * j->size;
}

/* A vector, times `scale`, padded with zeros. */
INLINE void gather(const attention_job *j, const void *from, int64_t place, float scale, float *to) {
    for (int64_t d = 0; d < j->size; d += LANES)
        *(floats *)(to + d) = read(from, place + d, j->size - d < LANES ? j->size - d : LANES, j->bfloat16) * scale;
}

/* Rows and columns of a square of numbers change places. */
INLINE void transpose(floats v[LANES]) {
    UNROLLED for (int i = 0; i < 8; i++) {
        floats a = v[i], b = v[i + 8];
        v[i] = __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);
        v[i + 8] = __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
    }
    UNROLLED for (int i = 0; i < LANES; i++)
        if (!(i & 4)) {
            floats a = v[i], b = v[i + 4];
            v[i] = __builtin_shufflevector(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27);
            v[i + 4] = __builtin_shufflevector(a, b, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
        }
    UNROLLED for (int i = 0; i < LANES; i++)
        if (!(i & 2)) {
            floats a = v[i], b = v[i + 2];
            v[i] = __builtin_shufflevector(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
            v[i + 2] = __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
        }
    UNROLLED for (int i = 0; i < LANES; i++)
        if (!(i & 1)) {
            floats a = v[i], b = v[i + 1];
            v[i] = __builtin_shufflevector(a, b, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30);
            v[i + 1] = __builtin_shufflevector(a, b, 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31);
        }
}

/* keys[d][key]: a row's keys with their numbers apart, so that scores of sixteen keys come at once. */
INLINE void spread(const attention_job *j, int64_t start, int64_t length, int64_t head, float *keys) {
    int64_t width = padded(length);
    for (int64_t first = 0; first < length; first += LANES)
        for (int64_t d = 0; d < j->size; d += LANES) {
            floats square[LANES];
            int64_t count = j->size - d < LANES ? j->size - d : LANES;
            for (int64_t i = 0; i < LANES; i++) {
                int64_t key = first + i < length ? first + i : length - 1; /* a score that is not used must be a number */
                square[i] = read(j->from, vector(j, start + key, KEY, head) + d, count, j->bfloat16);
            }
            transpose(square);
            for (int64_t i = 0; i < count; i++) *(floats *)(keys + (d + i) * width + first) = square[i];
        }
}

/* scores[query][key] for a block of queries and `vectors` vectors of keys (a constant where it is called) from `first` on. */
INLINE void part(const float *queries, const float *keys, int64_t size, int64_t line, int64_t width, int64_t first, int vectors,
                 float scores[BLOCK][MAX_LENGTH]) {
    sums sum[BLOCK][4] = {{{0}}};
    for (int64_t d = 0; d < size; d++)
        UNROLLED for (int v = 0; v < vectors; v++) {
            sums key = *(const sums *)(keys + d * width + first + v * SUM_LANES);
            UNROLLED for (int q = 0; q < BLOCK; q++) sum[q][v] += queries[q * line + d] * key;
        }
    UNROLLED for (int v = 0; v < vectors; v++)
        UNROLLED for (int q = 0; q < BLOCK; q++) *(sums *)&scores[q][first + v * SUM_LANES] = sum[q][v];
}

INLINE void score(const float *queries, const float *keys, int64_t size, int64_t line, int64_t length,
                  float scores[BLOCK][MAX_LENGTH]) {
    int64_t width = padded(length), first = 0;
    for (; first + 4 * SUM_LANES <= width; first += 4 * SUM_LANES) part(queries, keys, size, line, width, first, 4, scores);
    for (; first + 2 * SUM_LANES <= width; first += 2 * SUM_LANES) part(queries, keys, size, line, width, first, 2, scores);
    if (first < width) part(queries, keys, size, line, width, first, 1, scores);
}

/* Exponentials of the scores less their maximum, times `scale`, in place; returns one over their sum. */
INLINE float weigh(float *scores, int64_t length, float scale) {
    static const ints place = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    int64_t end = padded(length);
    floats *last = (floats *)(scores + end - LANES), most, sum = {0};
    most = *last = either(place < (int32_t)(length - end + LANES), *last, (floats){0} - 1e30f);
    for (int64_t key = 0; key + LANES < end; key += LANES) {
        floats more = *(const floats *)(scores + key);
        most = either(more > most, more, most);
    }
    float maximum = largest(most);
    for (int64_t key = 0; key < end; key += LANES) sum += *(floats *)(scores + key) = exponential((*(const floats *)(scores + key) - maximum) * scale);
    *last = either(place < (int32_t)(length - end + LANES), *last, (floats){0}); /* what is left of so small a number takes long */
    return 1 / total(sum);
}

/* mixed[query] (width) = scores[query] · values, for `vectors` vectors (a constant where it is called) from `d` on. */
INLINE void mix(float scores[BLOCK][MAX_LENGTH], const float *values, int64_t length, int64_t width, int64_t d, int vectors,
                float *mixed) {
    sums sum[BLOCK][4] = {{{0}}};
    for (int64_t key = 0; key < length; key++)
        UNROLLED for (int v = 0; v < vectors; v++) {
            sums value = *(const sums *)(values + key * width + d + v * SUM_LANES);
            UNROLLED for (int q = 0; q < BLOCK; q++) sum[q][v] += scores[q][key] * value;
        }
    UNROLLED for (int q = 0; q < BLOCK; q++)
        UNROLLED for (int v = 0; v < vectors; v++) *(sums *)(mixed + q * width + d + v * SUM_LANES) = sum[q][v];
}

/* Ask for what the head after this one, if there is one, will read of a token: its lines lie too far apart for the processor to
   foresee. */
INLINE void ahead(const attention_job *j, int64_t token, int64_t head) {
    int64_t bytes = j->bfloat16 ? 2 : 4;
    for (int64_t which = VALUE; head + 1 < j->heads && which <= vectors(j); which++) {
        const char *from = (const char *)j->from + vector(j, token, which, head + 1) * bytes;
        for (int64_t n = 0; n < j->size * bytes; n += 64) __builtin_prefetch(from + n);
    }
}

#ifdef __AMX_BF16__
#include "attention_tiles.h"
#endif

static void attend(const attention_job *j, int64_t row, int64_t head, float scale) {
    float keys[MAX_LENGTH * MAX_SIZE], values[MAX_LENGTH * MAX_SIZE];
    float queries[BLOCK * MAX_SIZE], mixed[BLOCK * MAX_SIZE], scores[BLOCK][MAX_LENGTH], over[BLOCK];
    int64_t start = j->starts[row], length = j->starts[row + 1] - start, width = padded(j->size);
    for (int64_t token = start; token < start + length; token++) ahead(j, token, head);
    spread(j, start, length, head, keys);
    for (int64_t token = 0; token < length; token++) gather(j, j->from, vector(j, start + token, VALUE, head), 1, values + token * width);
    memset(queries, 0, sizeof queries);
    int64_t asking = j->queries ? 1 : length, line = j->queries ? row : start;
    for (int64_t first = 0; first < asking; first += BLOCK) {
        int rows = asking - first < BLOCK ? asking - first : BLOCK;
        for (int q = 0; q < rows; q++) {
            const void *from = j->queries ? j->queries : j->from;
            int64_t place = j->queries ? (row * j->heads + head) * j->size : vector(j, start + first + q, QUERY, head);
            gather(j, from, place, scale, queries + q * width);
        }
        score(queries, keys, j->size, width, length, scores);
        for (int q = 0; q < BLOCK; q++) over[q] = weigh(scores[q], length, 1);
        int64_t d = 0;
        for (; d + 4 * SUM_LANES <= width; d += 4 * SUM_LANES) mix(scores, values, length, width, d, 4, mixed);
        for (; d + 2 * SUM_LANES <= width; d += 2 * SUM_LANES) mix(scores, values, length, width, d, 2, mixed);
        for (; d < width; d += SUM_LANES) mix(scores, values, length, width, d, 1, mixed);
        for (int q = 0; q < rows; q++)
            for (d = 0; d < j->size; d += LANES)
                write(j->to, ((line + first + q) * j->heads + head) * j->size + d, *(floats *)(mixed + q * width + d) * over[q],
                      j->size - d < LANES ? j->size - d : LANES, j->bfloat16);
    }
}

static int64_t work(const attention_job *j) {
    int64_t sum = 0;
    for (int64_t row = 0; row < j->rows; row++) {
        int64_t length = j->starts[row + 1] - j->starts[row];
        sum += length * (j->queries ? 1 : length);
    }
    return 2 * sum * j->heads * j->size;
}

/* The whole batch. */
int attention(const attention_job *j) {
    if (j->size > MAX_SIZE) return 1;
    for (int64_t row = 0; row < j->rows; row++)
        if (j->starts[row + 1] - j->starts[row] > MAX_LENGTH) return 1;
    float scale = 1 / (float)__builtin_sqrt((double)j->size);
    int team = !omp_in_parallel() && work(j) >= WORTH_A_TEAM;
    int64_t once = j->rows < AT_ONCE * omp_get_max_threads() ? AT_ONCE : j->heads;
#ifdef __AMX_BF16__
    if (j->bfloat16) {
#pragma omp parallel if (team)
        {
            shapes before;
            shape(SIDE, &before);
#pragma omp for schedule(dynamic, once)
            for (int64_t n = 0; n < j->rows * j->heads; n++) attend_in_tiles(j, n / j->heads, n % j->heads, scale);
            _tile_loadconfig(&before);
        }
        return 0;
    }
#endif
#pragma omp parallel for schedule(dynamic, once) if (team)
    for (int64_t n = 0; n < j->rows * j->heads; n++) attend(j, n / j->heads, n % j->heads, scale);
    return 0;
}
