/* A linear layer for runs of rows that each have their own: y = x Wᵀ + bias, or y = tanh(x) Wᵀ + bias, in float32.

   What a library does for two rows costs more to ask for than to compute, and a batch has dozens of such runs. */

#include <omp.h>

#include "jobs.h"

#define MAX_INPUTS 8192
#define AT_ONCE 64 /* outputs that one thread computes at a time, for all rows of a run: their weights stay in its own cache */
#define LITTLE 4096 /* weights of a run up to which the processor, which foresees long ones, is told that they come */
#define WORTH_A_TEAM 1000000 /* weights below which waking other threads costs more than it saves */

/* Up to four outputs from `n` on of `rows` rows (a constant where it is called), of which `row` is the first, and x its inputs. */
INLINE void outputs(const heads_job *j, const head_layer *l, const float *x, int64_t row, int64_t n, int rows) {
    sums sum[BLOCK][4] = {{{0}}};
    const float *weight[4];
    for (int i = 0; i < 4; i++) weight[i] = l->weight + (n + i < l->outputs ? n + i : l->outputs - 1) * j->inputs;
    int64_t k = 0;
    for (; k + SUM_LANES <= j->inputs; k += SUM_LANES)
        UNROLLED for (int i = 0; i < 4; i++) {
            sums factor = *(const sums *)(weight[i] + k);
            UNROLLED for (int r = 0; r < rows; r++) sum[r][i] += *(const sums *)(x + r * j->inputs + k) * factor;
        }
    if (k < j->inputs)
        UNROLLED for (int i = 0; i < 4; i++) {
            floats factor = read(weight[i], k, j->inputs - k, 0);
            UNROLLED for (int r = 0; r < rows; r++) sum[r][i] = folded(sum[r][i], read(x, r * j->inputs + k, j->inputs - k, 0) * factor);
        }
    int64_t count = l->outputs - n < 4 ? l->outputs - n : 4;
    UNROLLED for (int r = 0; r < rows; r++) {
        four total = totals(sum[r][0], sum[r][1], sum[r][2], sum[r][3]);
        for (int i = 0; i < count; i++) j->y[(row + r) * j->width + n + i] = total[i] + l->bias[n + i];
    }
}

INLINE void block(const heads_job *j, const head_layer *l, int64_t row, int64_t from, int64_t to, int rows) {
    const float *x = j->x + row * j->inputs;
    float bent[BLOCK * MAX_INPUTS];
    if (j->tanh) {
        for (int64_t k = 0, count = rows * j->inputs; k < count; k += LANES) {
            int64_t some = count - k < LANES ? count - k : LANES;
            write(bent, k, tangent(read(x, k, some, 0)), some, 0);
        }
        x = bent;
    }
    for (int64_t n = from; n < to; n += 4) outputs(j, l, x, row, n, rows);
}

/* The rows of one run from `row` to `stop`, and their outputs from `from` on, as many as one thread takes. */
static void run(const heads_job *j, int64_t number, int64_t row, int64_t stop, int64_t from) {
    const head_layer *l = j->layers + number;
    int64_t to = from + AT_ONCE < l->outputs ? from + AT_ONCE : l->outputs;
    if (from >= to) return;
    for (; row + BLOCK <= stop; row += BLOCK) block(j, l, row, from, to, BLOCK);
    for (; row < stop; row++) block(j, l, row, from, to, 1);
}

/* Brings a run's few weights nearer: batches have dozens of runs, each with its own. */
INLINE void ask(const heads_job *j, int64_t number) {
    const head_layer *l = j->layers + number;
    int64_t count = l->outputs * j->inputs;
    for (int64_t k = 0; count <= LITTLE && k < count; k += LANES) __builtin_prefetch(l->weight + k);
}

int heads_readable(const heads_job *j) {
    for (int64_t n = 0; n < j->runs; n++)
        if (j->bounds[2 * n + 1] > j->rows || j->layers[n].outputs > j->width) return 0;
    return !j->tanh || j->inputs <= MAX_INPUTS;
}

void heads_over(const heads_job *j, int64_t first, int64_t stop) {
    int64_t from = 0, to = j->runs, work = 0, most = 0;
    while (from < to && j->bounds[2 * from + 1] <= first) from++;
    while (from < to && j->bounds[2 * to - 2] >= stop) to--;
    for (int64_t n = from; n < to; n++) {
        work += j->layers[n].outputs * j->inputs;
        most = j->layers[n].outputs > most ? j->layers[n].outputs : most;
    }
    int64_t parts = (most + AT_ONCE - 1) / AT_ONCE;
#pragma omp parallel for schedule(dynamic, 1) if (work >= WORTH_A_TEAM && !omp_in_parallel())
    for (int64_t n = from * parts; n < to * parts; n++) {
        int64_t number = n / parts, row = j->bounds[2 * number], end = j->bounds[2 * number + 1];
        if ((n + 1) / parts < to) ask(j, (n + 1) / parts);
        run(j, number, row > first ? row : first, end < stop ? end : stop, n % parts * AT_ONCE);
    }
}

/* All rows. Returns 0, or 1 for what cannot be read; nothing is written then. */
int heads_apply(const heads_job *j) {
    if (!heads_readable(j)) return 1;
    heads_over(j, 0, j->rows);
    return 0;
}
