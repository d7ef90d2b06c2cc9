/* Tiles, where the processor multiplies whole ones (AMX): 16 rows of 64 bytes, of which a register holds one. */

#pragma once

#include "vectors.h"

#define SIDE 16          /* rows of a tile, and sums of each */
#define STEP 32          /* numbers of a row of it in bfloat16, which a product takes */
#define HALF_STEP (STEP / 2) /* pairs of them */
#define TILE_BYTES (SIDE * LINE_BYTES)
#define BLOCK_ROWS (2 * SIDE)
#define PANEL (2 * SIDE) /* columns that are made at once */

/* A block's sums, and rows of it laid out in tiles, of which each step has two. */
typedef float block_sums[BLOCK_ROWS][PANEL] __attribute__((aligned(LINE_BYTES)));
typedef uint16_t block_step[BLOCK_ROWS][STEP] __attribute__((aligned(LINE_BYTES)));

/* Steps that so many numbers of a row take. */
INLINE int64_t steps_of(int64_t count) { return (count + STEP - 1) / STEP; }

/* Numbers of so many lines, in blocks of rows, of panels, of rows: a line of a tile is one of the cache's, and tiles are end to end. */
INLINE int64_t in_tiles_of(int64_t lines, int64_t columns) {
    return rounded_up(lines, BLOCK_ROWS) * rounded_up(columns, PANEL);
}

/* Where a block's tiles of rows are read: their lines are `line` bytes apart, the next step's are `step` bytes further. */
typedef struct {
    const char *from;
    int64_t line, step;
} source;

typedef struct {
    uint8_t palette, start, none[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} shapes;

/* What was stored before is there for tiles to be loaded: the compiler is not told what they read. */
INLINE void written(void) { __asm__ volatile("" ::: "memory"); }

/* Gives all registers but the last two, which weights are loaded to, so many rows. What else runs on this thread may count on the
   shapes that were there before. */
INLINE void shape(int64_t rows, shapes *before) {
    shapes s = {.palette = 1};
    for (int n = 0; n < 8; n++) s.bytes[n] = LINE_BYTES, s.rows[n] = n < 6 ? rows : SIDE;
    _tile_storeconfig(before);
    written();
    _tile_loadconfig(&s);
}

/* 32 numbers in bfloat16. */
INLINE words rounded(floats low, floats high) { return (words)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low); }

/* Pairs of a number of `a` and one of `b`: of the first sixteen of each, or of the others. */
INLINE words woven(words a, words b, int others) {
    typedef uint16_t many __attribute__((vector_size(4 * LANES)));
    many x = (many)a, y = (many)b;
#define PAIR(n) n, n + 32
#define EIGHT(n) PAIR(n), PAIR(n + 1), PAIR(n + 2), PAIR(n + 3), PAIR(n + 4), PAIR(n + 5), PAIR(n + 6), PAIR(n + 7)
    if (others) return (words)__builtin_shufflevector(x, y, EIGHT(16), EIGHT(24));
    return (words)__builtin_shufflevector(x, y, EIGHT(0), EIGHT(8));
}

INLINE void zero(void) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

/* Lays rows of so many bytes out as tiles, with zeros after them. */
INLINE source laid_out(const char *x, int64_t bytes, int64_t rows, block_step *to) {
    for (int64_t s = 0; s * LINE_BYTES < bytes; s++) {
        int64_t count = bytes - s * LINE_BYTES < LINE_BYTES ? bytes - s * LINE_BYTES : LINE_BYTES;
        for (int64_t r = 0; r < rows; r++) *(words *)to[s][r] = take(x + r * bytes + s * LINE_BYTES, count);
    }
    written();
    return (source){(const char *)to, LINE_BYTES, sizeof *to};
}
