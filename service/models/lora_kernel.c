/* y += x Aᵀ B for runs of rows that each wear their own factors, and the activation: a whole batch in one call.

   Small matrix products through a library cost more in dispatch and padding than in arithmetic. Here the rows of a run
   go through in blocks, with a block's low-rank values kept in registers and on the stack, and the lines that the next
   block and the next run will read are asked for meanwhile. */

#include "jobs.h"

#define MAX_PARTS 3
#define TILE 64       /* rows that one thread takes at a time */
#define ROWS 8        /* of a block, UP_ROWS of which share every load of b */
#define COLUMNS 32    /* of b and y that a block takes; rows of a and b are padded to as many */
#ifdef __AVX512F__
#define UP_ROWS ROWS /* whose sums stay in registers on the way up */
#else
#define UP_ROWS BLOCK
#endif
#define CACHE_LINE 64
#define WORTH_A_TEAM 2000000 /* multiply-adds below which waking other threads costs more than it saves */
#define GELU_COST 16  /* of one number, in multiply-adds */

/* Low-rank values are kept as they will be multiplied: floats, or pairs of bfloat16. */
typedef uint32_t value __attribute__((may_alias));

INLINE int64_t values(const factors *f, int half) { return half ? f->rank / 2 : f->rank; }

INLINE int64_t bytes(int64_t count, int half) { return half ? 2 * count : 4 * count; }

INLINE int64_t line(int64_t count, int half) { return bytes((count + COLUMNS - 1) / COLUMNS * COLUMNS, half); }

/* sum[row][i] += x[row] · a[i] over one vector of inputs, or its first `count` bytes. */
INLINE void multiply(const char *x, int64_t width, const char *a, int64_t next, int64_t count, sums sum[BLOCK][4], int rows,
                     int half) {
#ifndef __AVX512F__
    if (!half && count == sizeof(words)) {
        UNROLLED for (uint64_t k = 0; k < sizeof(words); k += sizeof(sums))
            UNROLLED for (int i = 0; i < 4; i++) {
                sums factor = *(const sums *)(a + i * next + k);
                UNROLLED for (int row = 0; row < rows; row++) sum[row][i] += *(const sums *)(x + row * width + k) * factor;
            }
        return;
    }
#endif
    words factor[4];
    UNROLLED for (int i = 0; i < 4; i++) factor[i] = *(const words *)(a + i * next);
    UNROLLED for (int row = 0; row < rows; row++) {
        words taken = take(x + row * width, count);
#ifdef __AVX512F__
        UNROLLED for (int i = 0; i < 4; i++) sum[row][i] = step(sum[row][i], taken, factor[i], half);
#else
        UNROLLED for (int i = 0; i < 4; i++) sum[row][i] = folded(sum[row][i], step((floats){0}, taken, factor[i], half));
#endif
    }
}

/* low[row] (rank) = x[row] aᵀ, for `rows` rows (a constant where it is called) and four ranks at a time. */
INLINE void down(const char *x, int64_t inputs, const factors *f, value *low, int rows, int half) {
    int64_t width = bytes(inputs, half), next = line(inputs, half), whole = sizeof(words);
    for (int64_t r = 0; r < f->rank; r += 4) {
        sums sum[BLOCK][4] = {{{0}}};
        const char *a = f->a + r * next;
        int64_t k = 0;
        for (; k + whole <= width; k += whole) multiply(x + k, width, a + k, next, whole, sum, rows, half);
        if (k < width) multiply(x + k, width, a + k, next, width - k, sum, rows, half);
        floats found = {0};
        if (rows == BLOCK)
            found = all_totals(sum);
        else
            *(four *)&found = totals(sum[0][0], sum[0][1], sum[0][2], sum[0][3]);
        floats lines;
        write(&lines, 0, found, LANES, half);
        UNROLLED for (int row = 0; row < rows; row++)
            memcpy((char *)low + bytes(row * f->rank + r, half), (char *)&lines + bytes(4 * row, half), bytes(4, half));
    }
}

/* y += sum, for `count` of the columns of a block, whose sums lie as `paired` has them. */
INLINE void add_halves(char *y, const floats *sum, int64_t count) {
    words old = take(y, 2 * count), none = {0};
    put(y, together((floats)paired(none, old, 0) + sum[0], (floats)paired(none, old, 1) + sum[1]), 2 * count);
}

INLINE void add_floats(char *y, const sums *sum, int64_t count) {
    UNROLLED for (int v = 0; v < COLUMNS / SUM_LANES; v++) {
        int64_t some = count - v * SUM_LANES;
        char *place = y + v * sizeof(sums);
        if (some >= SUM_LANES) {
            *(sums *)place += sum[v];
        } else if (some > 0) {
            floats old = (floats)take(place, 4 * some), more = {0};
            *(sums *)&more = sum[v];
            put(place, (words)(old + more), 4 * some);
        }
    }
}

/* y[row, columns] += low[row] b for `count` columns from `c` on. */
INLINE void columns(const lora_job *j, char *y, int64_t c, const factors *f, const value *low, int rows, int64_t count, int half) {
    int64_t next = line(j->outputs, half), depth = values(f, half), width = bytes(j->outputs * j->parts, half);
    const char *b = f->b + bytes(c, half);
    y += bytes(c, half);
    if (half) {
        floats sum[UP_ROWS][2] = {{{0}}};
        for (int64_t r = 0; r < depth; r++) {
            words even = *(const words *)(b + 2 * r * next), odd = *(const words *)(b + (2 * r + 1) * next);
            words factor[2] = {paired(even, odd, 0), paired(even, odd, 1)};
            UNROLLED for (int row = 0; row < rows; row++) {
                words each = (words){0} + low[row * depth + r];
                sum[row][0] = step(sum[row][0], each, factor[0], 1), sum[row][1] = step(sum[row][1], each, factor[1], 1);
            }
        }
        UNROLLED for (int row = 0; row < rows; row++) add_halves(y + row * width, sum[row], count);
        return;
    }
    sums sum[UP_ROWS][COLUMNS / SUM_LANES] = {{{0}}};
    for (int64_t r = 0; r < depth; r++)
        UNROLLED for (int v = 0; v < COLUMNS / SUM_LANES; v++) {
            sums factor = *((const sums *)(b + r * next) + v);
            UNROLLED for (int row = 0; row < rows; row++) sum[row][v] += ((const float *)low)[row * depth + r] * factor;
        }
    UNROLLED for (int row = 0; row < rows; row++) add_floats(y + row * width, sum[row], count);
}

/* The same for every column. */
INLINE void up(const lora_job *j, char *y, const factors *f, const value *low, int rows, int half) {
    int64_t c = 0;
    for (; c + COLUMNS <= j->outputs; c += COLUMNS) columns(j, y, c, f, low, rows, COLUMNS, half);
    if (c < j->outputs) columns(j, y, c, f, low, rows, j->outputs - c, half);
}

INLINE void ask(const char *from, int64_t count) {
    for (int64_t k = 0; k < count; k += CACHE_LINE) __builtin_prefetch(from + k);
}

/* A block of rows that wear the same factors, for each part that is changed; the rows ROWS further on are asked for. */
INLINE void block(const lora_job *j, const factors *table, int64_t row, int rows, int half) {
    value low[ROWS * MAX_RANK];
    int64_t next = bytes(j->inputs, half);
    const char *x = j->x + row * next;
    ask(x + ROWS * next, rows * next);
    for (int64_t part = 0; part < j->parts; part++) {
        const factors *f = &table[part];
        if (!f->rank) continue;
        char *y = j->y + bytes((row * j->parts + part) * j->outputs, half);
        for (int r = 0; r < rows; r++) ask(y + bytes((ROWS + r) * j->parts * j->outputs, half), bytes(j->outputs, half));
        for (int r = 0; r < rows; r += BLOCK) /* one row, or whole blocks */
            down(x + r * next, j->inputs, f, low + r * values(f, half), rows < BLOCK ? rows : BLOCK, half);
        for (int r = 0; r < rows; r += UP_ROWS)
            up(j, y + bytes(r * j->parts * j->outputs, half), f, low + r * values(f, half), rows < UP_ROWS ? rows : UP_ROWS, half);
    }
}

/* The rows of a run, up to `stop`; where it ends there, the next one's factors are asked for. */
INLINE void worn(const lora_job *j, int64_t run, int64_t row, int64_t stop, int half) {
    const factors *table = j->table + run * j->stride, *after = table + j->stride;
    int ends = stop == j->bounds[2 * run + 1] && run + 1 < j->runs;
    for (int64_t part = 0; ends && part < j->parts; part++) {
        ask(after[part].a, after[part].rank * line(j->inputs, half));
        ask(after[part].b, after[part].rank * line(j->outputs, half));
    }
    for (; row + ROWS <= stop; row += ROWS) block(j, table, row, ROWS, half);
    for (; row + BLOCK <= stop; row += BLOCK) block(j, table, row, BLOCK, half);
    for (; row < stop; row++) block(j, table, row, 1, half);
}

INLINE void activate(const lora_job *j, int64_t first, int64_t stop) {
    int64_t place = first * j->parts * j->outputs, end = stop * j->parts * j->outputs;
    for (; place + LANES <= end; place += LANES)
        write(j->y, place, gelu(read(j->y, place, LANES, j->bfloat16)), LANES, j->bfloat16);
    if (place < end) write(j->y, place, gelu(read(j->y, place, end - place, j->bfloat16)), end - place, j->bfloat16);
}

/* Rows `first` to `stop`, at most TILE of them, some of which lie in runs; they are activated while they are in a near cache. */
void lora_tile(const lora_job *j, int64_t first, int64_t stop) {
    for (int64_t run = 0; run < j->runs; run++) {
        int64_t from = j->bounds[2 * run] > first ? j->bounds[2 * run] : first;
        int64_t to = j->bounds[2 * run + 1] < stop ? j->bounds[2 * run + 1] : stop;
        if (from < to && j->bfloat16) worn(j, run, from, to, 1);
        if (from < to && !j->bfloat16) worn(j, run, from, to, 0);
        if (from < to && j->gelu == CHANGED_ROWS && changes(j, run)) activate(j, from, to);
    }
    if (j->gelu == EVERY_ROW) activate(j, first, stop);
}

static int64_t work(const lora_job *j) {
    int64_t sum = !!j->gelu * GELU_COST * j->rows * j->outputs * j->parts;
    for (int64_t run = 0; run < j->runs; run++)
        for (int64_t part = 0; part < j->parts; part++)
            sum += (j->bounds[2 * run + 1] - j->bounds[2 * run]) * j->table[run * j->stride + part].rank * (j->inputs + j->outputs);
    return sum;
}

/* The whole batch. */
int lora_add(const lora_job *j) {
    if (j->parts > MAX_PARTS) return 1;
    for (int64_t run = 0; run < j->runs; run++)
        for (int64_t part = 0; part < j->parts; part++)
            if (j->table[run * j->stride + part].rank > MAX_RANK) return 1;
    int team = work(j) >= WORTH_A_TEAM;
#pragma omp parallel for schedule(dynamic, 1) if (team)
    for (int64_t first = 0; first < j->rows; first += TILE) lora_tile(j, first, first + TILE < j->rows ? first + TILE : j->rows);
    return 0;
}
