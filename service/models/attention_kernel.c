/* Attention over rows that lie end to end: softmax(q kᵀ / √size) v within each row, for each head.

   Rows of a few dozen tokens are too small for a library's matrix products, which want them padded, masked and copied into
   another order first. Here one row's keys and values of one head are read to the stack where they lie, and its queries
   go through in blocks of four. Everything is computed in float32. */

#include "vectors.h"

#define MAX_LENGTH 512
#define MAX_SIZE 128
#define WORTH_A_TEAM 1000000 /* multiply-adds below which waking other threads costs more than it saves */
#define AT_ONCE 4            /* heads of a row that one thread takes at a time */

/* Rows of `from` (tokens, 3, heads, size) and `to` (tokens or rows, heads, size) hold bfloat16 or float32. */
typedef struct {
    void *to;
    const void *from;
    int64_t bfloat16, rows, heads, size;
    int64_t first_only;    /* whether only each row's first token asks; `to` has one line for each row then */
    const int64_t *starts; /* (rows + 1): every row's first token, and the end */
} job;

/* One of a token's three vectors, times `scale`, padded with zeros. */
INLINE void gather(const job *j, int64_t token, int64_t which, int64_t head, float scale, float *to) {
    int64_t place = ((token * 3 + which) * j->heads + head) * j->size;
    for (int64_t d = 0; d < j->size; d += LANES)
        *(floats *)(to + d) = read(j->from, place + d, j->size - d < LANES ? j->size - d : LANES, j->bfloat16) * scale;
}

/* scores[query][key] for a block of queries and every key, of which there are a multiple of four. */
INLINE void score(const float *queries, const float *keys, int64_t count, int64_t width, float scores[BLOCK][MAX_LENGTH]) {
    for (int64_t key = 0; key < count; key += 4) {
        floats sum[BLOCK][4] = {{{0}}};
        for (int64_t d = 0; d < width; d += LANES)
            UNROLLED for (int i = 0; i < 4; i++) {
                floats factor = *(const floats *)(keys + (key + i) * width + d);
                UNROLLED for (int q = 0; q < BLOCK; q++) sum[q][i] += *(const floats *)(queries + q * width + d) * factor;
            }
        UNROLLED for (int q = 0; q < BLOCK; q++) *(four *)&scores[q][key] = totals(sum[q][0], sum[q][1], sum[q][2], sum[q][3]);
    }
}

/* Exponentials of the scores less their maximum, in place; returns one over their sum. */
INLINE float weigh(float *scores, int64_t length) {
    int64_t end = padded(length);
    for (int64_t key = length; key < end; key++) scores[key] = -1e30f;
    floats most = *(const floats *)scores, sum = {0};
    for (int64_t key = LANES; key < end; key += LANES) {
        floats more = *(const floats *)(scores + key);
        most = either(more > most, more, most);
    }
    float maximum = most[0], total = 0;
    for (int i = 1; i < LANES; i++) maximum = most[i] > maximum ? most[i] : maximum;
    for (int64_t key = 0; key < end; key += LANES) sum += *(floats *)(scores + key) = exponential(*(const floats *)(scores + key) - maximum);
    for (int i = 0; i < LANES; i++) total += sum[i];
    return 1 / total;
}

/* mixed[query] (width) = scores[query] · values, for `vectors` vectors (a constant where it is called) from `d` on. */
INLINE void mix(float scores[BLOCK][MAX_LENGTH], const float *values, int64_t length, int64_t width, int64_t d, int vectors,
                float *mixed) {
    floats sum[BLOCK][4] = {{{0}}};
    for (int64_t key = 0; key < length; key++)
        UNROLLED for (int v = 0; v < vectors; v++) {
            floats value = *(const floats *)(values + key * width + d + v * LANES);
            UNROLLED for (int q = 0; q < BLOCK; q++) sum[q][v] += scores[q][key] * value;
        }
    UNROLLED for (int q = 0; q < BLOCK; q++)
        UNROLLED for (int v = 0; v < vectors; v++) *(floats *)(mixed + q * width + d + v * LANES) = sum[q][v];
}

FOR_EACH_PROCESSOR static void attend(const job *j, int64_t row, int64_t head, float scale) {
    float keys[MAX_LENGTH * MAX_SIZE], values[MAX_LENGTH * MAX_SIZE];
    float queries[BLOCK * MAX_SIZE], mixed[BLOCK * MAX_SIZE], scores[BLOCK][MAX_LENGTH], over[BLOCK];
    int64_t start = j->starts[row], length = j->starts[row + 1] - start, width = padded(j->size), count = (length + 3) / 4 * 4;
    for (int64_t token = 0; token < length; token++) {
        gather(j, start + token, 1, head, 1, keys + token * width);
        gather(j, start + token, 2, head, 1, values + token * width);
    }
    memset(keys + length * width, 0, 4 * (count - length) * width);
    memset(queries, 0, sizeof queries);
    int64_t asking = j->first_only ? 1 : length, line = j->first_only ? row : start;
    for (int64_t first = 0; first < asking; first += BLOCK) {
        int rows = asking - first < BLOCK ? asking - first : BLOCK;
        for (int q = 0; q < rows; q++) gather(j, start + first + q, 0, head, scale, queries + q * width);
        score(queries, keys, count, width, scores);
        for (int q = 0; q < BLOCK; q++) over[q] = weigh(scores[q], length);
        int64_t d = 0;
        for (; d + 4 * LANES <= width; d += 4 * LANES) mix(scores, values, length, width, d, 4, mixed);
        for (; d + 2 * LANES <= width; d += 2 * LANES) mix(scores, values, length, width, d, 2, mixed);
        for (; d < width; d += LANES) mix(scores, values, length, width, d, 1, mixed);
        for (int q = 0; q < rows; q++)
            for (d = 0; d < j->size; d += LANES)
                write(j->to, ((line + first + q) * j->heads + head) * j->size + d, *(floats *)(mixed + q * width + d) * over[q],
                      j->size - d < LANES ? j->size - d : LANES, j->bfloat16);
    }
}

static int64_t work(const job *j) {
    int64_t sum = 0;
    for (int64_t row = 0; row < j->rows; row++) {
        int64_t length = j->starts[row + 1] - j->starts[row];
        sum += length * (j->first_only ? 1 : length);
    }
    return 2 * sum * j->heads * j->size;
}

/* The one entry point. Returns 0, or 1 for sizes beyond what the stack is laid out for; nothing is written then. */
int VARIANT(attention)(const job *j, double scale) {
    if (j->size > MAX_SIZE) return 1;
    for (int64_t row = 0; row < j->rows; row++)
        if (j->starts[row + 1] - j->starts[row] > MAX_LENGTH) return 1;
    int team = work(j) >= WORTH_A_TEAM;
#pragma omp parallel for schedule(dynamic, AT_ONCE) if (team)
    for (int64_t n = 0; n < j->rows * j->heads; n++) attend(j, n / j->heads, n % j->heads, scale);
    return 0;
}
