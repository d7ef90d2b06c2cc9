/* A linear layer in bfloat16 on processors that multiply whole tiles, and what follows it.

   Two tiles of rows of x by two of outputs share their loads, which then take half as long as the products, if x comes from the
   nearest cache and weights from the next one. So a block of rows goes over as many weights as stay near for the blocks after it,
   and these are loaded as what will not be read again soon: else they would drive x from the nearest cache.
   Low-rank products are added before a sum is rounded. That, GELU, and writing are done while the next sums are made. */

#include <immintrin.h>

#define TILE 256 /* rows that one thread takes at a time: weights come from farther away than they are multiplied */

#include "lora_tiles.h"

#define UNIT BLOCK_ROWS

#include "product.h"

#define NEAR (1 << 20) /* bytes of weights that stay near for some blocks */
#define AHEAD 8192     /* bytes further that weights are asked for, where they come from afar */
#define ASKED 4        /* lines of factors that are asked for in each step */

const int64_t weights_in_tiles = 1;

/* Sums of a block to be rounded and written: `count` numbers of each row, which are `line` numbers apart. */
typedef struct {
    block_sums sums;
    uint16_t *y;
    int64_t line, rows, count;
} made;

typedef struct {
    int64_t row, rows;
    outfit worn;
} block;

typedef struct {
    const product_job *job;
    int64_t steps, fresh; /* whether weights come from afar */
    source x;
    outfit worn; /* by the block that x has */
    made last;
    errand next;
} state;

/* Where a row's numbers from a column on are, a panel's first. */
INLINE int64_t place_in_tiles(int64_t row, int64_t column, int64_t columns) {
    return in_tiles_of(row / BLOCK_ROWS * BLOCK_ROWS, columns) + column * BLOCK_ROWS + row % BLOCK_ROWS * PANEL;
}

/* Rows as they lie, where they fill tiles and lines, or laid out so. In tiles already, rows that are none may follow: what is read
   there goes into sums that nothing reads. */
INLINE source rows_of(const product_job *j, int64_t row, int64_t rows, block_step *to) {
    int64_t inputs = j->layer->inputs, bytes = 2 * inputs;
    if (j->x_tiled) return (source){(const char *)j->x + 2 * place_in_tiles(row, 0, inputs), LINE_BYTES, 2 * TILE_BYTES};
    const char *x = (const char *)j->x + row * bytes;
    return rows % SIDE || bytes % LINE_BYTES ? laid_out(x, bytes, rows, to) : (source){x, bytes, LINE_BYTES};
}

/* Tells where the sums of a panel of a block are to be written. */
INLINE void aim(const product_job *j, made *m, int64_t row, int64_t rows, int64_t column) {
    int64_t outputs = j->layer->outputs;
    m->y = (uint16_t *)j->y + (j->y_tiled ? place_in_tiles(row, column, outputs) : row * outputs + column);
    m->line = j->y_tiled ? PANEL : outputs, m->rows = rows, m->count = j->y_tiled ? PANEL : least(outputs - column, PANEL);
}

INLINE void finish(const product_job *j, const made *m, int64_t row, int64_t stop) {
    for (; row < stop; row++) {
        floats a = *(const floats *)m->sums[row], b = *(const floats *)(m->sums[row] + LANES);
        if (j->gelu) a = gelu(a), b = gelu(b);
        put(m->y + row * m->line, rounded(a, b), 2 * m->count);
    }
}

INLINE const char *weights(const state *s, int64_t column) {
    return (const char *)s->job->layer->values + column / PANEL * s->steps * 2 * TILE_BYTES;
}

/* A panel of two tiles of rows, while the last one is finished. */
INLINE void two_by_two(state *s, int64_t column) {
    const float *bias = s->job->layer->bias + column;
    const char *weight = weights(s, column), *x = s->x.from;
    int64_t line = s->x.line, done = 0, much = (s->last.rows + s->steps - 1) / s->steps;
    if (s->job->lora) go_on(s->job->lora, &s->next);
    _tile_loadd(0, bias, 0);
    _tile_loadd(1, bias + SIDE, 0);
    _tile_loadd(2, bias, 0);
    _tile_loadd(3, bias + SIDE, 0);
    for (int64_t step = 0; step < s->steps; step++, x += s->x.step, weight += 2 * TILE_BYTES) {
        _tile_stream_loadd(6, weight, LINE_BYTES);
        _tile_loadd(4, x, line);
        _tile_stream_loadd(7, weight + TILE_BYTES, LINE_BYTES);
        _tile_loadd(5, x + SIDE * line, line);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
        for (int64_t n = 0; s->fresh && n < 2 * TILE_BYTES; n += LINE_BYTES) __builtin_prefetch(weight + AHEAD + n, 0, 2);
        for (int n = 0; n < ASKED && s->next.from < s->next.to; n++, s->next.from += LINE_BYTES) __builtin_prefetch(s->next.from, 0, 2);
        int64_t stop = least(done + much, s->last.rows);
        finish(s->job, &s->last, done, stop);
        done = stop;
    }
    raise_two(s->worn, column);
    _tile_stored(0, s->last.sums[0], sizeof *s->last.sums);
    _tile_stored(1, s->last.sums[0] + SIDE, sizeof *s->last.sums);
    _tile_stored(2, s->last.sums[SIDE], sizeof *s->last.sums);
    _tile_stored(3, s->last.sums[SIDE] + SIDE, sizeof *s->last.sums);
}

/* Two panels of one tile of rows; the sums stay in the registers. */
INLINE void one_by_four(state *s, int64_t column) {
    const float *bias = s->job->layer->bias + column;
    const char *weight = weights(s, column), *further = weights(s, column + PANEL), *x = s->x.from;
    _tile_loadd(0, bias, 0);
    _tile_loadd(1, bias + SIDE, 0);
    _tile_loadd(2, bias + 2 * SIDE, 0);
    _tile_loadd(3, bias + 3 * SIDE, 0);
    for (int64_t step = 0; step < s->steps; step++, x += s->x.step, weight += 2 * TILE_BYTES, further += 2 * TILE_BYTES) {
        _tile_loadd(4, x, s->x.line);
        _tile_stream_loadd(6, weight, LINE_BYTES);
        _tile_dpbf16ps(0, 4, 6);
        _tile_stream_loadd(7, weight + TILE_BYTES, LINE_BYTES);
        _tile_dpbf16ps(1, 4, 7);
        _tile_stream_loadd(6, further, LINE_BYTES);
        _tile_dpbf16ps(2, 4, 6);
        _tile_stream_loadd(7, further + TILE_BYTES, LINE_BYTES);
        _tile_dpbf16ps(3, 4, 7);
    }
    raise_one(s->worn, column);
}

static void one_tile(state *s, int64_t row, int64_t rows, int64_t left, int64_t right) {
    for (int64_t column = left; column < right; column += 2 * PANEL) {
        made m;
        one_by_four(s, column);
        _tile_stored(0, m.sums[0], sizeof *m.sums);
        _tile_stored(1, m.sums[0] + SIDE, sizeof *m.sums);
        _tile_stored(2, m.sums[SIDE], sizeof *m.sums);
        _tile_stored(3, m.sums[SIDE] + SIDE, sizeof *m.sums);
        aim(s->job, &m, row, rows, column);
        finish(s->job, &m, 0, rows);
        if (column + PANEL >= s->job->layer->outputs) break;
        memcpy(m.sums, m.sums[SIDE], sizeof m.sums / 2);
        aim(s->job, &m, row, rows, column + PANEL);
        finish(s->job, &m, 0, rows);
    }
}

static void two_tiles(state *s, int64_t row, int64_t rows, int64_t left, int64_t right) {
    for (int64_t column = left; column < right; column += PANEL) {
        two_by_two(s, column);
        aim(s->job, &s->last, row, rows, column);
    }
}

/* The outputs of a block from `left` on. */
static void multiply(state *s, const block *b, source x, int64_t first, int64_t left, int64_t right) {
    s->x = x, s->worn = b->worn, s->fresh = b->row == first;
    (b->rows > SIDE ? two_tiles : one_tile)(s, b->row, b->rows, left, right);
}

static void tile(const product_job *j, int64_t first, int64_t count, int64_t from, int64_t to) {
    block_step memory[MAX_INPUTS / STEP];
    block blocks[TILE];
    wardrobe wardrobe;
    state s;
    shapes before;
    s.job = j, s.steps = steps_of(j->layer->inputs), s.last.rows = 0, s.next = (errand){0};
    int64_t wide = (NEAR / (s.steps * 4 * TILE_BYTES) + 1) * STRIP, most = wide < to - from ? TILE : 1;
    shape(least(count, SIDE), &before);
    for (int64_t row = first, stop = first + count, run = 0; row < stop;) {
        int64_t n = 0;
        wardrobe.count = wardrobe.steps = 0;
        for (; n < most && row < stop; row += blocks[n++].rows) {
            int64_t rows = least(stop - row, BLOCK_ROWS - (row - first) % BLOCK_ROWS);
            if (j->lora) run = run_at(j->lora, run, row);
            if (j->lora && !(rows = with_room(j->lora, run, row, rows, &wardrobe))) break;
            source x = rows_of(j, row, rows, memory);
            blocks[n] = (block){row, rows, j->lora ? dress(j->lora, run, x, row, rows, &wardrobe) : (outfit){0}};
            if (j->lora) s.next = (errand){run_from(j->lora, run, row + rows), row + rows + BLOCK_ROWS, 0, 0};
            multiply(&s, blocks + n, x, first, from, least(from + wide, to));
        }
        for (int64_t left = from + wide; left < to; left += wide)
            for (const block *b = blocks; b < blocks + n; b++)
                multiply(&s, b, rows_of(j, b->row, b->rows, memory), first, left, least(left + wide, to));
    }
    finish(j, &s.last, 0, s.last.rows);
    _tile_loadconfig(&before);
}

int bfloat16_linear(const product_job *j) {
    if (beyond(j) || !j->bfloat16) return 1;
    in_tiles(j, tile, 1);
    return 0;
}
