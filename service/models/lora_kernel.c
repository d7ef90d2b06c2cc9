/* y += x Aᵀ B for runs of rows that each wear their own factors: the low-rank products of a whole batch in one call.

   Small matrix products through a library cost more in dispatch and padding than in arithmetic. Here the rows of a run
   go through in blocks of four, with the block's low-rank values kept in registers and on the stack. Vectors are the
   compiler's own, so the same code is AVX-512, AVX2 or NEON; on x86 the loader picks the variant for the processor. */

#include <stdint.h>
#include <string.h>

#define LANES 16
#define BLOCK 4       /* rows that share every load of a factor */
#define MAX_RANK 1024
#define MAX_INPUTS 16384
#define TILE 64       /* rows that one thread takes at a time */
#define WORTH_A_TEAM 2000000 /* multiply-adds below which waking other threads costs more than it saves */

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif
#define INLINE static inline __attribute__((always_inline))

typedef float floats __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t ints __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint32_t words __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES), aligned(2)));

/* One module's factors: a (rank, inputs) and b (rank, outputs), rows padded with zeros to whole vectors. Rank 0: none. */
typedef struct {
    const float *a, *b;
    int64_t rank;
} factors;

/* What one call works on. Rows of x and y hold bfloat16 or float32 and lie end to end. */
typedef struct {
    void *y;
    const void *x;
    int64_t bfloat16, inputs, outputs, parts, runs;
    const int64_t *bounds;   /* (runs, 2): first row, and the one after the last */
    const factors *table;    /* (runs, stride): of each run, of each module; `parts` consecutive ones are read */
    int64_t stride;
} job;

INLINE int64_t padded(int64_t count) { return (count + LANES - 1) / LANES * LANES; }

INLINE floats widen(const uint16_t *from, int64_t count) {
    halves narrow = {0};
    memcpy(&narrow, from, 2 * count);
    return (floats)(__builtin_convertvector(narrow, words) << 16);
}

INLINE void narrow_to(uint16_t *to, floats value, int64_t count) {
    words bits = (words)value;
    words rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16; /* to nearest, ties to even */
    ints number = value == value;
    halves narrow = __builtin_convertvector((rounded & (words)number) | (0x7fc0 & ~(words)number), halves);
    memcpy(to, &narrow, 2 * count);
}

INLINE void read_row(const job *j, int64_t row, float *to) {
    for (int64_t k = 0; k < j->inputs; k += LANES) {
        int64_t count = j->inputs - k < LANES ? j->inputs - k : LANES;
        floats value = {0};
        if (j->bfloat16)
            value = count == LANES ? widen((const uint16_t *)j->x + row * j->inputs + k, LANES)
                                   : widen((const uint16_t *)j->x + row * j->inputs + k, count);
        else if (count == LANES)
            value = *(const floats *)((const float *)j->x + row * j->inputs + k);
        else
            memcpy(&value, (const float *)j->x + row * j->inputs + k, 4 * count);
        *(floats *)(to + k) = value;
    }
}

INLINE void add_to(const job *j, int64_t place, int64_t count, floats value) {
    if (j->bfloat16) {
        uint16_t *y = (uint16_t *)j->y + place;
        narrow_to(y, widen(y, count) + value, count);
    } else if (count == LANES) {
        *(floats *)((float *)j->y + place) += value;
    } else {
        floats sum = {0};
        memcpy(&sum, (float *)j->y + place, 4 * count);
        sum += value;
        memcpy((float *)j->y + place, &sum, 4 * count);
    }
}

typedef float eight __attribute__((vector_size(32), aligned(4)));
typedef float four __attribute__((vector_size(16), aligned(4)));

INLINE four quarter(floats v) {
    eight half = *(eight *)&v + *((eight *)&v + 1);
    return *(four *)&half + *((four *)&half + 1);
}

/* The sums over the lanes of four vectors. */
INLINE four totals(floats a, floats b, floats c, floats d) {
    four p = quarter(a), q = quarter(b), r = quarter(c), s = quarter(d);
    four pq = __builtin_shufflevector(p, q, 0, 4, 1, 5) + __builtin_shufflevector(p, q, 2, 6, 3, 7);
    four rs = __builtin_shufflevector(r, s, 0, 4, 1, 5) + __builtin_shufflevector(r, s, 2, 6, 3, 7);
    return __builtin_shufflevector(pq, rs, 0, 1, 4, 5) + __builtin_shufflevector(pq, rs, 2, 3, 6, 7);
}

/* low[row][r] = x[row] · a[r], for `rows` rows (a constant where it is called) and four ranks at a time. */
INLINE void down(const float *x, int64_t width, const factors *f, float low[BLOCK][MAX_RANK], int rows) {
    for (int64_t r = 0; r < f->rank; r += 4) {
        floats sum[BLOCK][4] = {{{0}}};
        const float *a = f->a + r * width;
        for (int64_t k = 0; k < width; k += LANES)
            for (int i = 0; i < 4; i++) {
                floats factor = *(const floats *)(a + i * width + k);
                for (int row = 0; row < rows; row++) sum[row][i] += *(const floats *)(x + row * width + k) * factor;
            }
        for (int row = 0; row < rows; row++) *(four *)&low[row][r] = totals(sum[row][0], sum[row][1], sum[row][2], sum[row][3]);
    }
}

/* y[row, columns] += low[row] b for `vectors` vectors of columns from `c` on, the last of which has `last` columns. */
INLINE void columns(const job *j, int64_t place, int64_t c, const float *b, int64_t rank, float low[BLOCK][MAX_RANK], int rows,
                    int vectors, int64_t last) {
    int64_t width = padded(j->outputs);
    floats sum[BLOCK][4] = {{{0}}};
    for (int64_t r = 0; r < rank; r++)
        for (int v = 0; v < vectors; v++) {
            floats factor = *(const floats *)(b + r * width + c + v * LANES);
            for (int row = 0; row < rows; row++) sum[row][v] += low[row][r] * factor;
        }
    for (int row = 0; row < rows; row++)
        for (int v = 0; v < vectors; v++)
            add_to(j, place + row * j->outputs * j->parts + c + v * LANES, v + 1 == vectors ? last : LANES, sum[row][v]);
}

INLINE void up(const job *j, int64_t first, int64_t part, const factors *f, float low[BLOCK][MAX_RANK], int rows) {
    int64_t place = (first * j->parts + part) * j->outputs, c = 0;
    for (; c + 4 * LANES <= j->outputs; c += 4 * LANES) columns(j, place, c, f->b, f->rank, low, rows, 4, LANES);
    for (; c + LANES <= j->outputs; c += LANES) columns(j, place, c, f->b, f->rank, low, rows, 1, LANES);
    if (c < j->outputs) columns(j, place, c, f->b, f->rank, low, rows, 1, j->outputs - c);
}

INLINE void block(const job *j, const factors *table, int64_t first, int rows) {
    float x[BLOCK * MAX_INPUTS], low[BLOCK][MAX_RANK];
    int64_t width = padded(j->inputs);
    for (int row = 0; row < rows; row++) read_row(j, first + row, x + row * width);
    for (int64_t part = 0; part < j->parts; part++)
        if (table[part].rank) {
            down(x, width, &table[part], low, rows);
            up(j, first, part, &table[part], low, rows);
        }
}

FOR_EACH_PROCESSOR static void tile(const job *j, const factors *table, int64_t first, int64_t stop) {
    for (; first + BLOCK <= stop; first += BLOCK) block(j, table, first, BLOCK);
    for (; first < stop; first++) block(j, table, first, 1);
}

static int64_t work(const job *j) {
    int64_t sum = 0;
    for (int64_t run = 0; run < j->runs; run++)
        for (int64_t part = 0; part < j->parts; part++)
            sum += (j->bounds[2 * run + 1] - j->bounds[2 * run]) * j->table[run * j->stride + part].rank * (j->inputs + j->outputs);
    return sum;
}

/* The one entry point. Returns 0, or 1 for sizes beyond what the stack is laid out for; nothing is written then. */
int lora_add(const job *j) {
    if (j->inputs > MAX_INPUTS) return 1;
    for (int64_t run = 0; run < j->runs; run++)
        for (int64_t part = 0; part < j->parts; part++)
            if (j->table[run * j->stride + part].rank > MAX_RANK) return 1;
    int64_t tiles = 0;
    for (int64_t run = 0; run < j->runs; run++) tiles += (j->bounds[2 * run + 1] - j->bounds[2 * run] + TILE - 1) / TILE;
    int team = work(j) >= WORTH_A_TEAM;
#pragma omp parallel for schedule(dynamic, 1) if (team)
    for (int64_t n = 0; n < tiles; n++) {
        int64_t run = 0, before = 0, count;
        while (before + (count = (j->bounds[2 * run + 1] - j->bounds[2 * run] + TILE - 1) / TILE) <= n) before += count, run++;
        int64_t first = j->bounds[2 * run] + (n - before) * TILE, stop = j->bounds[2 * run + 1];
        tile(j, j->table + run * j->stride, first, first + TILE < stop ? first + TILE : stop);
    }
    return 0;
}
