/* y += x Aᵀ B for runs of rows that each wear their own factors, and the activation: a whole batch in one call.

   Small matrix products through a library cost more in dispatch and padding than in arithmetic. Here the rows of a run
   go through in blocks of four, with the block's low-rank values kept in registers and on the stack. */

#include "vectors.h"

#define MAX_RANK 1024
#define MAX_PARTS 3
#define MAX_INPUTS 16384
#define TILE 64       /* rows that one thread takes at a time */
#define WORTH_A_TEAM 2000000 /* multiply-adds below which waking other threads costs more than it saves */
#define GELU_COST 16  /* of one number, in multiply-adds */

/* One module's factors: a (rank, inputs) and b (rank, outputs), rows padded with zeros to whole vectors. Rank 0: none. */
typedef struct {
    const float *a, *b;
    int64_t rank;
} factors;

/* What one call works on. Rows of x and y hold bfloat16 or float32 and lie end to end. */
typedef struct {
    void *y;
    const void *x;
    int64_t bfloat16, rows, inputs, outputs, parts, gelu, runs;
    const int64_t *bounds;   /* (runs, 2): first row, and the one after the last */
    const factors *table;    /* (runs, stride): of each run, of each module; `parts` consecutive ones are read */
    int64_t stride;
} job;

/* low[row] (rank) = x[row] aᵀ, for `rows` rows (a constant where it is called) and four ranks at a time. */
INLINE void down(const float *x, int64_t width, const factors *f, float *low, int rows) {
    for (int64_t r = 0; r < f->rank; r += 4) {
        floats sum[BLOCK][4] = {{{0}}};
        const float *a = f->a + r * width;
        for (int64_t k = 0; k < width; k += LANES)
            UNROLLED for (int i = 0; i < 4; i++) {
                floats factor = *(const floats *)(a + i * width + k);
                UNROLLED for (int row = 0; row < rows; row++) sum[row][i] += *(const floats *)(x + row * width + k) * factor;
            }
        UNROLLED for (int row = 0; row < rows; row++)
            *(four *)(low + row * f->rank + r) = totals(sum[row][0], sum[row][1], sum[row][2], sum[row][3]);
    }
}

INLINE void add(const job *j, int64_t place, int64_t count, floats value) {
    write(j->y, place, read(j->y, place, count, j->bfloat16) + value, count, j->bfloat16);
}

/* y[row, columns] += low[row] b for `vectors` vectors of columns from `c` on, the last of which has `last` columns. */
INLINE void columns(const job *j, int64_t place, int64_t c, const factors *f, const float *low, int rows, int vectors,
                    int64_t last) {
    int64_t width = padded(j->outputs);
    floats sum[BLOCK][4] = {{{0}}};
    for (int64_t r = 0; r < f->rank; r++)
        UNROLLED for (int v = 0; v < vectors; v++) {
            floats factor = *(const floats *)(f->b + r * width + c + v * LANES);
            UNROLLED for (int row = 0; row < rows; row++) sum[row][v] += low[row * f->rank + r] * factor;
        }
    UNROLLED for (int row = 0; row < rows; row++)
        UNROLLED for (int v = 0; v < vectors; v++)
            add(j, place + row * j->outputs * j->parts + c + v * LANES, v + 1 == vectors ? last : LANES, sum[row][v]);
}

/* The same for all rows of a piece, so that what it reads of b stays in the nearest cache. */
INLINE void strip(const job *j, int64_t first, int64_t count, int64_t part, int64_t c, const factors *f, const float *low,
                  int vectors, int64_t last) {
    int64_t line = j->outputs * j->parts, place = first * line + part * j->outputs, row = 0;
    for (; row + BLOCK <= count; row += BLOCK) columns(j, place + row * line, c, f, low + row * f->rank, BLOCK, vectors, last);
    for (; row < count; row++) columns(j, place + row * line, c, f, low + row * f->rank, 1, vectors, last);
}

INLINE void up(const job *j, int64_t first, int64_t count, int64_t part, const factors *f, const float *low) {
    int64_t c = 0;
    for (; c + 4 * LANES <= j->outputs; c += 4 * LANES) strip(j, first, count, part, c, f, low, 4, LANES);
    int64_t vectors = padded(j->outputs - c) / LANES, last = j->outputs - c - (vectors - 1) * LANES;
    if (vectors == 4) strip(j, first, count, part, c, f, low, 4, last);
    if (vectors == 3) strip(j, first, count, part, c, f, low, 3, last);
    if (vectors == 2) strip(j, first, count, part, c, f, low, 2, last);
    if (vectors == 1) strip(j, first, count, part, c, f, low, 1, last);
}

/* Rows of x as floats, padded to whole vectors: where they lie if that is how they lie, or else copied. */
INLINE const float *lines(const job *j, int64_t first, int rows, float *copy) {
    int64_t width = padded(j->inputs);
    if (!j->bfloat16 && width == j->inputs) return (const float *)j->x + first * width;
    for (int i = 0; i < rows; i++)
        for (int64_t k = 0; k < j->inputs; k += LANES)
            *(floats *)(copy + i * width + k) =
                read(j->x, (first + i) * j->inputs + k, j->inputs - k < LANES ? j->inputs - k : LANES, j->bfloat16);
    return copy;
}

/* Low-rank values of up to BLOCK rows, for each part that is changed. */
INLINE void block(const job *j, const factors *table, int64_t first, int rows, int64_t row, float *low) {
    float copy[BLOCK * MAX_INPUTS];
    const float *x = lines(j, first + row, rows, copy);
    for (int64_t part = 0; part < j->parts; part++)
        if (table[part].rank)
            down(x, padded(j->inputs), &table[part], low + part * TILE * MAX_RANK + row * table[part].rank, rows);
}

/* At most TILE rows that wear the same factors. */
INLINE void worn(const job *j, const factors *table, int64_t first, int64_t count) {
    float low[MAX_PARTS * TILE * MAX_RANK];
    int64_t row = 0;
    for (; row + BLOCK <= count; row += BLOCK) block(j, table, first, BLOCK, row, low);
    for (; row < count; row++) block(j, table, first, 1, row, low);
    for (int64_t part = 0; part < j->parts; part++)
        if (table[part].rank) up(j, first, count, part, &table[part], low + part * TILE * MAX_RANK);
}

/* Rows `first` to `stop`, at most TILE of them, some of which lie in runs; they are activated while they are in a near cache. */
FOR_EACH_PROCESSOR void VARIANT(lora_tile)(const job *j, int64_t first, int64_t stop) {
    for (int64_t run = 0; run < j->runs; run++) {
        int64_t from = j->bounds[2 * run] > first ? j->bounds[2 * run] : first;
        int64_t to = j->bounds[2 * run + 1] < stop ? j->bounds[2 * run + 1] : stop;
        if (from < to) worn(j, j->table + run * j->stride, from, to - from);
    }
    if (!j->gelu) return;
    int64_t place = first * j->parts * j->outputs, end = stop * j->parts * j->outputs;
    for (; place + LANES <= end; place += LANES)
        write(j->y, place, gelu(read(j->y, place, LANES, j->bfloat16)), LANES, j->bfloat16);
    if (place < end) write(j->y, place, gelu(read(j->y, place, end - place, j->bfloat16)), end - place, j->bfloat16);
}

static int64_t work(const job *j) {
    int64_t sum = j->gelu * GELU_COST * j->rows * j->outputs * j->parts;
    for (int64_t run = 0; run < j->runs; run++)
        for (int64_t part = 0; part < j->parts; part++)
            sum += (j->bounds[2 * run + 1] - j->bounds[2 * run]) * j->table[run * j->stride + part].rank * (j->inputs + j->outputs);
    return sum;
}

/* The whole batch. Returns 0, or 1 for sizes beyond what the stack is laid out for; nothing is written then. */
int VARIANT(lora_add)(const job *j) {
    if (j->inputs > MAX_INPUTS || j->parts > MAX_PARTS) return 1;
    for (int64_t run = 0; run < j->runs; run++)
        for (int64_t part = 0; part < j->parts; part++)
            if (j->table[run * j->stride + part].rank > MAX_RANK) return 1;
    int team = work(j) >= WORTH_A_TEAM;
#pragma omp parallel for schedule(dynamic, 1) if (team)
    for (int64_t first = 0; first < j->rows; first += TILE) VARIANT(lora_tile)(j, first, first + TILE < j->rows ? first + TILE : j->rows);
    return 0;
}
