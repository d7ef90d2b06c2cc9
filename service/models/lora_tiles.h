/* Low-rank products in tiles, for a block of rows of which some wear other factors than others.

   Factors lie as tiles are read: a in steps of inputs, of pairs of inputs, of ranks; b in sixteens of outputs, of pairs of ranks,
   beginning where the module's outputs begin in a panel. A tile may reach beyond a factor: what it reads there is a finite number
   of the same adapter, and makes sums that nothing reads, or is multiplied by zero. */

#pragma once

#include "jobs.h"
#include "tiles.h"

#define MAX_PARTS 3
#define LOW_STEPS (2 * MAX_PARTS * MAX_RANK / STEP) /* for some blocks: more than those of one row */
#define WORN (8 * BLOCK_ROWS * MAX_PARTS)

/* What a run's rows in a block get from one module's factors: `low` holds x aᵀ, and zeros in other rows. */
typedef struct {
    const char *b;
    block_step *low;
    int64_t rank, from, to; /* the columns */
    int upper, lower;       /* whether it has rows in either tile */
} worn;

/* What blocks wear, one after the other. */
typedef struct {
    worn each[WORN];
    block_step low[LOW_STEPS];
    int64_t count, steps;
} wardrobe;

/* Some of it. */
typedef struct {
    const worn *first, *end;
} outfit;

/* x aᵀ for one tile of rows, or two, and sixteen ranks; steps take turns with two sums, so that none waits for the one before. */
INLINE void down(source x, int64_t steps, const char *a, int64_t next, int two, block_sums sum) {
    zero();
    for (int64_t s = 0; s < steps; s++) {
        const char *from = x.from + s * x.step, *weight = a + s * HALF_STEP * next;
        _tile_loadd(4, from, x.line);
        if (two) _tile_loadd(5, from + SIDE * x.line, x.line);
        if (s % 2) {
            _tile_loadd(7, weight, next);
            _tile_dpbf16ps(2, 4, 7);
            if (two) _tile_dpbf16ps(3, 5, 7);
        } else {
            _tile_loadd(6, weight, next);
            _tile_dpbf16ps(0, 4, 6);
            if (two) _tile_dpbf16ps(1, 5, 6);
        }
    }
    _tile_stored(0, sum[0], sizeof *sum);
    _tile_stored(2, sum[0] + SIDE, sizeof *sum);
    if (two) _tile_stored(1, sum[SIDE], sizeof *sum);
    if (two) _tile_stored(3, sum[SIDE] + SIDE, sizeof *sum);
}

/* Fills w->low for rows `first` to `stop` of a block. */
INLINE void lower(source x, int64_t steps, const factors *f, int64_t first, int64_t stop, const worn *w) {
    int64_t skip = w->upper ? 0 : SIDE;
    x.from += skip * x.line;
    memset(w->low, 0, (f->rank + STEP - 1) / STEP * sizeof *w->low);
    for (int64_t rank = 0; rank < f->rank; rank += SIDE) {
        block_sums sum;
        if (w->upper && w->lower)
            down(x, steps, f->a + 4 * rank, 4 * f->rank, 1, sum);
        else
            down(x, steps, f->a + 4 * rank, 4 * f->rank, 0, sum);
        __mmask16 own = f->rank - rank < SIDE ? (1 << (f->rank - rank)) - 1 : 0xffff;
        for (int64_t r = first; r < stop; r++) {
            floats whole = *(const floats *)sum[r - skip] + *(const floats *)(sum[r - skip] + SIDE);
            *(halves *)(w->low[rank / STEP][r] + rank % STEP) = narrowed((floats)_mm512_maskz_mov_ps(own, (__m512)whole));
        }
    }
    written();
}

/* The first run, from this one on, that goes on at a row or begins after it. */
INLINE int64_t run_at(const lora_job *j, int64_t run, int64_t row) {
    while (run < j->runs && j->bounds[2 * run + 1] <= row) run++;
    return run;
}

/* How many of so many rows, from `first` on, which is the run's or before it, there is room for. */
INLINE int64_t with_room(const lora_job *j, int64_t run, int64_t first, int64_t rows, const wardrobe *in) {
    int64_t steps = in->steps, count = in->count;
    for (; run < j->runs && j->bounds[2 * run] < first + rows; run++) {
        for (int64_t part = 0; part < j->parts; part++, count++) steps += (j->table[run * j->stride + part].rank + STEP - 1) / STEP;
        if (steps > LOW_STEPS || count > WORN) return j->bounds[2 * run] > first ? j->bounds[2 * run] - first : 0;
    }
    return rows;
}

INLINE void ask(const char *from, int64_t count) {
    for (int64_t k = 0; k < count; k += LINE_BYTES) __builtin_prefetch(from + k, 0, 2);
}

/* Factors of this run and those after it that begin before row `stop` are brought nearer: they are the next block's. */
INLINE void ask_for(const lora_job *j, int64_t run, int64_t stop) {
    for (; run < j->runs && j->bounds[2 * run] < stop; run++)
        for (int64_t part = 0; part < j->parts; part++) {
            const factors *f = &j->table[run * j->stride + part];
            ask(f->a, 2 * f->rank * ((j->inputs + STEP - 1) / STEP * STEP));
            ask(f->b, 2 * f->rank * ((j->outputs + STEP - 1) / STEP * STEP));
        }
}

/* What rows `first` to `first + rows` wear, which are read from x. */
INLINE outfit dress(const lora_job *j, int64_t run, source x, int64_t first, int64_t rows, wardrobe *in) {
    const worn *start = in->each + in->count;
    for (; run < j->runs && j->bounds[2 * run] < first + rows; run++) {
        int64_t from = j->bounds[2 * run] - first, stop = j->bounds[2 * run + 1] - first;
        from = from > 0 ? from : 0, stop = stop < rows ? stop : rows;
        for (int64_t part = 0; part < j->parts; part++) {
            const factors *f = &j->table[run * j->stride + part];
            if (!f->rank) continue;
            worn *w = &in->each[in->count++];
            *w = (worn){f->b, in->low + in->steps, f->rank, part * j->outputs, (part + 1) * j->outputs, from < SIDE, stop > SIDE};
            lower(x, (j->inputs + STEP - 1) / STEP, f, from, stop, w);
            in->steps += (f->rank + STEP - 1) / STEP;
        }
    }
    ask_for(j, run, first + rows + BLOCK_ROWS);
    return (outfit){start, in->each + in->count};
}

/* Where the factors for a panel's columns lie, or null where it has none of them. */
INLINE const char *tiles_of(const worn *w, int64_t column) {
    if (column >= w->to || column + PANEL <= w->from) return 0;
    return w->b + (column - w->from / PANEL * PANEL) * 2 * w->rank;
}

/* Adds them to the sums in the first four registers, of which two tiles of rows have two each. */
INLINE void raise_two(outfit worn_here, int64_t column) {
    for (const worn *w = worn_here.first; w < worn_here.end; w++) {
        const char *b = tiles_of(w, column);
        for (int64_t rank = 0; b && rank < w->rank; rank += STEP) {
            const block_step *low = w->low + rank / STEP;
            _tile_loadd(6, b + 2 * SIDE * rank, LINE_BYTES);
            _tile_loadd(7, b + 2 * SIDE * (w->rank + rank), LINE_BYTES);
            if (w->upper) {
                _tile_loadd(4, *low, LINE_BYTES);
                _tile_dpbf16ps(0, 4, 6);
                _tile_dpbf16ps(1, 4, 7);
            }
            if (w->lower) {
                _tile_loadd(5, (*low)[SIDE], LINE_BYTES);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
            }
        }
    }
}

/* The same where one tile of rows has all four: two panels. */
INLINE void raise_one(outfit worn_here, int64_t column) {
    for (const worn *w = worn_here.first; w < worn_here.end; w++) {
        const char *near = tiles_of(w, column), *far = tiles_of(w, column + PANEL);
        for (int64_t rank = 0; rank < w->rank; rank += STEP) {
            _tile_loadd(4, w->low[rank / STEP], LINE_BYTES);
            if (near) {
                _tile_loadd(6, near + 2 * SIDE * rank, LINE_BYTES);
                _tile_loadd(7, near + 2 * SIDE * (w->rank + rank), LINE_BYTES);
                _tile_dpbf16ps(0, 4, 6);
                _tile_dpbf16ps(1, 4, 7);
            }
            if (far) {
                _tile_loadd(6, far + 2 * SIDE * rank, LINE_BYTES);
                _tile_loadd(7, far + 2 * SIDE * (w->rank + rank), LINE_BYTES);
                _tile_dpbf16ps(2, 4, 6);
                _tile_dpbf16ps(3, 4, 7);
            }
        }
    }
}
