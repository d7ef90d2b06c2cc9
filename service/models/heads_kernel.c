/* A linear layer for runs of rows that each have their own: y = x Wᵀ + bias, in float32.

   What a library does for two rows costs more to ask for than to compute, and a batch has dozens of such runs. */

#include "vectors.h"

#define WORTH_A_TEAM 1000000 /* weights below which waking other threads costs more than it saves */

/* One run's layer: weight (outputs, inputs) and bias (outputs). No outputs: its rows are left alone. */
typedef struct {
    const float *weight, *bias;
    int64_t outputs;
} layer;

/* What one call works on. Rows of x have `inputs` numbers, those of y `width`, of which a run's first `outputs` are written. */
typedef struct {
    float *y;
    const float *x;
    int64_t width, inputs, runs;
    const int64_t *bounds; /* (runs, 2): first row, and the one after the last */
    const layer *layers;
} job;

/* Up to four outputs from `n` on of `rows` rows (a constant where it is called). */
INLINE void outputs(const job *j, const layer *l, int64_t row, int64_t n, int rows) {
    floats sum[BLOCK][4] = {{{0}}};
    const float *weight[4], *x = j->x + row * j->inputs;
    for (int i = 0; i < 4; i++) weight[i] = l->weight + (n + i < l->outputs ? n + i : l->outputs - 1) * j->inputs;
    int64_t k = 0;
    for (; k + LANES <= j->inputs; k += LANES)
        UNROLLED for (int i = 0; i < 4; i++) {
            floats factor = *(const floats *)(weight[i] + k);
            UNROLLED for (int r = 0; r < rows; r++) sum[r][i] += *(const floats *)(x + r * j->inputs + k) * factor;
        }
    if (k < j->inputs)
        UNROLLED for (int i = 0; i < 4; i++) {
            floats factor = read(weight[i], k, j->inputs - k, 0);
            UNROLLED for (int r = 0; r < rows; r++) sum[r][i] += read(x, r * j->inputs + k, j->inputs - k, 0) * factor;
        }
    int64_t count = l->outputs - n < 4 ? l->outputs - n : 4;
    UNROLLED for (int r = 0; r < rows; r++) {
        four total = totals(sum[r][0], sum[r][1], sum[r][2], sum[r][3]);
        for (int i = 0; i < count; i++) j->y[(row + r) * j->width + n + i] = total[i] + l->bias[n + i];
    }
}

FOR_EACH_PROCESSOR static void run(const job *j, int64_t number) {
    const layer *l = j->layers + number;
    int64_t first = j->bounds[2 * number], stop = j->bounds[2 * number + 1];
    for (int64_t n = 0; n < l->outputs; n += 4) {
        int64_t row = first;
        for (; row + BLOCK <= stop; row += BLOCK) outputs(j, l, row, n, BLOCK);
        for (; row < stop; row++) outputs(j, l, row, n, 1);
    }
}

static int64_t work(const job *j) {
    int64_t sum = 0;
    for (int64_t n = 0; n < j->runs; n++) sum += j->layers[n].outputs * j->inputs;
    return sum;
}

/* The one entry point. Returns 0. */
int heads_apply(const job *j) {
    int team = work(j) >= WORTH_A_TEAM;
#pragma omp parallel for schedule(dynamic, 1) if (team)
    for (int64_t n = 0; n < j->runs; n++) run(j, n);
    return 0;
}
