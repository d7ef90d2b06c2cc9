/* Low-rank products in tiles, for a block of rows of which some wear other factors than others.

   Factors lie as tiles are read: a in steps of inputs, of pairs of inputs, of ranks, those of all parts side by side; b in sixteens
   of outputs, of pairs of ranks, beginning where the module's outputs begin in a panel. All of a run lie end to end. A tile may
   reach beyond a factor: what it reads there is a finite number of the same adapter, and makes sums that nothing reads, or is
   multiplied by zero. */

#pragma once

#include "jobs.h"
#include "tiles.h"

#define MAX_PARTS 3
#define LOW_STEPS (2 * MAX_PARTS * MAX_RANK / STEP) /* for some blocks: more than those of one row */
#define WORN (8 * BLOCK_ROWS * MAX_PARTS)
#define RANKS 8 /* ranks of a part are so many, or several times as many */

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

/* Fills `low` of parts of a run, which are `end - w`, for rows `first` to `stop` of a block. */
INLINE void lower(source x, int64_t steps, const char *a, int64_t first, int64_t stop, const worn *w, const worn *end) {
    typedef uint16_t eight __attribute__((vector_size(2 * RANKS)));
    int64_t skip = w->upper ? 0 : SIDE, ranks = 0, rank = 0;
    x.from += skip * x.line;
    for (const worn *each = w; each < end; ranks += each++->rank) memset(each->low, 0, steps_of(each->rank) * sizeof *each->low);
    for (int64_t from = 0; from < ranks; from += SIDE) {
        block_sums sum;
        if (w->upper && w->lower)
            down(x, steps, a + 4 * from, 4 * ranks, 1, sum);
        else
            down(x, steps, a + 4 * from, 4 * ranks, 0, sum);
        for (int64_t column = 0; column < SIDE && w < end; column += RANKS) {
            uint16_t *to = w->low[rank / STEP][0] + rank % STEP;
            for (int64_t r = first; r < stop; r++) {
                const float *one = sum[r - skip] + column, *other = one + SIDE;
                *(eight *)(to + r * STEP) = (eight)_mm256_cvtneps_pbh(_mm256_loadu_ps(one) + _mm256_loadu_ps(other));
            }
            if ((rank += RANKS) == w->rank) w++, rank = 0;
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
        for (int64_t part = 0; part < j->parts; part++, count++) steps += steps_of(j->table[run * j->stride + part].rank);
        if (steps > LOW_STEPS || count > WORN) return j->bounds[2 * run] > first ? j->bounds[2 * run] - first : 0;
    }
    return rows;
}

/* The first run, from this one on, that begins at a row or after it. */
INLINE int64_t run_from(const lora_job *j, int64_t run, int64_t row) {
    while (run < j->runs && j->bounds[2 * run] < row) run++;
    return run;
}

/* What the next block wears and this one does not: the factors of runs from `run` on that begin before row `stop` are brought
   nearer, little by little, since all at once they would hold up what is read meanwhile. Those of one run are `from` to `to`. */
typedef struct {
    int64_t run, stop;
    const char *from, *to;
} errand;

/* About as many bytes as a run's factors take. */
INLINE int64_t bytes_of(const lora_job *j, const factors *f) {
    int64_t ranks = 0;
    for (int64_t part = 0; part < j->parts; part++) ranks += f[part].rank;
    return 2 * ranks * (STEP * steps_of(j->inputs) + STEP * steps_of(j->outputs));
}

/* Where these are all asked for, goes on to the next run's. */
INLINE void go_on(const lora_job *j, errand *e) {
    if (e->from < e->to || e->run >= j->runs || j->bounds[2 * e->run] >= e->stop) return;
    const factors *f = j->table + e->run++ * j->stride;
    for (int64_t part = 0; part < j->parts; part++)
        if (f[part].rank) {
            e->from = f[part].a, e->to = e->from + bytes_of(j, f);
            return;
        }
}

/* What rows `first` to `first + rows` wear, which are read from x. */
INLINE outfit dress(const lora_job *j, int64_t run, source x, int64_t first, int64_t rows, wardrobe *in) {
    const worn *start = in->each + in->count;
    for (; run < j->runs && j->bounds[2 * run] < first + rows; run++) {
        int64_t from = j->bounds[2 * run] - first, stop = j->bounds[2 * run + 1] - first;
        from = from > 0 ? from : 0, stop = stop < rows ? stop : rows;
        const worn *own = in->each + in->count;
        const char *a = 0;
        for (int64_t part = 0; part < j->parts; part++) {
            const factors *f = &j->table[run * j->stride + part];
            if (!f->rank) continue;
            a = a ? a : f->a;
            in->each[in->count++] = (worn){f->b, in->low + in->steps, f->rank, part * j->outputs, (part + 1) * j->outputs, from < SIDE, stop > SIDE};
            in->steps += steps_of(f->rank);
        }
        if (a) lower(x, steps_of(j->inputs), a, from, stop, own, in->each + in->count);
    }
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
