/* A linear layer's product in tiles of rows, and what follows it while a tile is in a near cache. */

#pragma once

#include <immintrin.h>
#include <omp.h>

#include "norm.h"

#define MAX_INPUTS 8192
#ifndef TILE
#define TILE 48   /* rows that one thread takes at a time; lora_tile takes no more than 64 */
#endif
#ifndef UNIT
#define UNIT TILE /* rows that are best multiplied together: tiles have so many, or several times as many */
#endif
#define FEW 8     /* rows that one thread takes where each has multiplied a part of the outputs */
#define ROWS 6    /* that share every load of weights */
/* Outputs of which ROWS rows fill the registers, of which there are half as many, half as long, without AVX-512. */
#ifdef __AVX512F__
#define STRIP 64
#else
#define STRIP 16
#endif
#define WORTH_A_TEAM 4000000 /* multiply-adds below which waking other threads costs more than it saves */

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

INLINE int beyond(const product_job *j) { return j->layer->inputs > MAX_INPUTS || (j->residual && j->layer->outputs > MAX_WIDTH); }

/* Tells of each row of a tile whether GELU goes over it at once: where it does at all, over those that no factors change. */
INLINE void settle(const product_job *j, int64_t first, int64_t count, uint8_t *now) {
    memset(now, j->gelu != 0, count);
    for (int64_t run = 0; j->gelu && j->lora && run < j->lora->runs; run++) {
        int64_t from = j->lora->bounds[2 * run] > first ? j->lora->bounds[2 * run] : first;
        int64_t to = least(j->lora->bounds[2 * run + 1], first + count);
        if (from < to && changes(j->lora, run)) memset(now + from - first, 0, to - from);
    }
}

static void follow(const product_job *j, int64_t first, int64_t stop, int adapted) {
    if (j->lora && !adapted) lora_tile(j->lora, first, stop);
    for (int64_t row = first; j->residual && row < stop; row++) {
        int64_t count = j->layer->outputs, place = row * count;
        float line[MAX_WIDTH];
        for (int64_t k = 0; k < count; k += LANES) {
            int64_t some = least(count - k, LANES);
            *(floats *)(line + k) = read(j->y, place + k, some, j->bfloat16) + read(j->residual, place + k, some, j->bfloat16);
        }
        normalise(line, count, j->weight, j->bias, j->epsilon, j->y, place, j->bfloat16);
    }
}

/* The whole batch; `multiply` does `count` rows from `first` on, and of their outputs those from `from` to `to`; with `adapted`, it
   adds the low-rank products itself. */
INLINE void in_tiles(const product_job *j, void (*multiply)(const product_job *, int64_t first, int64_t count, int64_t from, int64_t to),
                     int adapted) {
    int64_t outputs = j->layer->outputs;
    if (!j->rows) return;
    int team = !omp_in_parallel() && j->rows * j->layer->inputs * outputs >= WORTH_A_TEAM;
    int64_t tiles = (j->rows + TILE - 1) / TILE, units = (j->rows + UNIT - 1) / UNIT, strips = (outputs + STRIP - 1) / STRIP;
    /* A few rows alone do not keep all threads busy: then each takes a part of the outputs of all of them. */
    int64_t threads = team ? omp_get_max_threads() : 1, wanted = team ? 2 * threads : 1;
    int64_t parts = tiles >= wanted ? 1 : (wanted + tiles - 1) / tiles;
    /* As many for each thread, where units are small enough to be shared out so. */
    if (parts == 1 && UNIT < TILE) tiles = (tiles + threads - 1) / threads * threads;
    int64_t wide = (strips + parts - 1) / parts * STRIP;
    parts = (outputs + wide - 1) / wide; /* none without outputs */
#pragma omp parallel for schedule(dynamic, 1) if (team)
    for (int64_t n = 0; n < tiles * parts; n++) {
        int64_t first = n / parts * units / tiles * UNIT, stop = least((n / parts + 1) * units / tiles * UNIT, j->rows);
        int64_t from = n % parts * wide;
        multiply(j, first, stop - first, from, least(from + wide, outputs));
        if (parts == 1) follow(j, first, stop, adapted);
    }
    if (parts == 1 || !((j->lora && !adapted) || j->residual)) return;
#pragma omp parallel for schedule(dynamic, 1) if (team)
    for (int64_t first = 0; first < j->rows; first += FEW) follow(j, first, least(first + FEW, j->rows), adapted);
}

/* Calls `strip` for rows and columns of a tile, with the number of rows that share its loads as a constant. */
#define FOR_EACH_STRIP(count, from, to, strip)                                                            \
    for (int64_t column = from; column < to; column += STRIP) {                                           \
        int64_t r = 0;                                                                                    \
        for (; r + ROWS <= count; r += ROWS) strip(ROWS);                                                 \
        switch (count - r) {                                                                              \
            case 1: strip(1); break;                                                                      \
            case 2: strip(2); break;                                                                      \
            case 3: strip(3); break;                                                                      \
            case 4: strip(4); break;                                                                      \
            case 5: strip(5); break;                                                                      \
        }                                                                                                 \
    }
