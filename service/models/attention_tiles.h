/* Attention of one head of one row in tiles: scores are sums in float32, and weights are the sums of two numbers in bfloat16. */

#pragma once

#include "tiles.h"

#define KEY_TILES (MAX_LENGTH / SIDE)
#define SIZE_STEPS (MAX_SIZE / STEP)

typedef words tile[SIDE] __attribute__((aligned(LINE_BYTES)));

/* Of a head: keys in pairs of their numbers, and values in pairs of keys. */
typedef struct {
    tile keys[KEY_TILES][SIZE_STEPS], values[KEY_TILES / 2][2 * SIZE_STEPS];
} head_tiles;

/* One step of a vector, with zeros after its numbers. */
INLINE words step_of(const attention_job *j, const void *from, int64_t place, int64_t step) {
    int64_t count = j->size - step * STEP;
    return take((const uint16_t *)from + place + step * STEP, 2 * (count < STEP ? count : STEP));
}

/* The same of a token's, and nothing but zeros where the row has no such token. */
INLINE words step_of_token(const attention_job *j, int64_t token, int64_t stop, int64_t which, int64_t head, int64_t step) {
    return token < stop ? step_of(j, j->from, vector(j, token, which, head), step) : (words){0};
}

INLINE void turn_keys(const attention_job *j, int64_t start, int64_t stop, int64_t head, int64_t steps, head_tiles *to) {
    for (int64_t n = 0; start + n * SIDE < stop; n++)
        for (int64_t s = 0; s < steps; s++) {
            floats square[SIDE];
            for (int64_t i = 0; i < SIDE; i++) square[i] = (floats)step_of_token(j, start + n * SIDE + i, stop, KEY, head, s);
            transpose(square);
            for (int64_t i = 0; i < SIDE; i++) to->keys[n][s][i] = (words)square[i];
        }
}

INLINE void pair_values(const attention_job *j, int64_t start, int64_t stop, int64_t head, int64_t steps, head_tiles *to) {
    for (int64_t n = 0; start + n * STEP < stop; n++)
        for (int64_t i = 0; i < SIDE; i++)
            for (int64_t s = 0; s < steps; s++) {
                int64_t token = start + n * STEP + 2 * i;
                words even = step_of_token(j, token, stop, VALUE, head, s), odd = step_of_token(j, token + 1, stop, VALUE, head, s);
                to->values[n][2 * s][i] = woven(even, odd, 0);
                to->values[n][2 * s + 1][i] = woven(even, odd, 1);
            }
}

/* scores[query][key] of a tile of queries. */
INLINE void score_tile(const block_step *queries, const head_tiles *of, int64_t steps, int64_t length, float scores[SIDE][MAX_LENGTH]) {
    for (int64_t n = 0; n * SIDE < length; n += 2) {
        int two = (n + 1) * SIDE < length;
        _tile_zero(0);
        _tile_zero(1);
        for (int64_t s = 0; s < steps; s++) {
            _tile_loadd(4, queries[s], LINE_BYTES);
            _tile_loadd(6, of->keys[n][s], LINE_BYTES);
            _tile_dpbf16ps(0, 4, 6);
            if (two) _tile_loadd(7, of->keys[n + 1][s], LINE_BYTES);
            if (two) _tile_dpbf16ps(1, 4, 7);
        }
        _tile_stored(0, scores[0] + n * SIDE, sizeof *scores);
        if (two) _tile_stored(1, scores[0] + (n + 1) * SIDE, sizeof *scores);
    }
}

/* What the first rounding leaves of two vectors. */
INLINE words rest_of(floats low, floats high, words all) {
    floats first = (floats)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256((__m512i)all)), 16);
    floats second = (floats)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64((__m512i)all, 1)), 16);
    return rounded(low - first, high - second);
}

/* mixed[query] = weights[query] · values of a tile of queries; steps of weights come in two parts. */
INLINE void mix_tile(const block_step weights[][2], const head_tiles *of, int64_t size, int64_t length, float mixed[SIDE][MAX_SIZE]) {
    for (int64_t d = 0; d * SIDE < size; d += 2) {
        _tile_zero(0);
        _tile_zero(1);
        for (int64_t n = 0; n * STEP < length; n++) {
            _tile_loadd(4, weights[n][0], LINE_BYTES);
            _tile_loadd(6, of->values[n][d], LINE_BYTES);
            _tile_loadd(7, of->values[n][d + 1], LINE_BYTES);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            _tile_loadd(5, weights[n][1], LINE_BYTES);
            _tile_dpbf16ps(0, 5, 6);
            _tile_dpbf16ps(1, 5, 7);
        }
        _tile_stored(0, mixed[0] + d * SIDE, sizeof *mixed);
        _tile_stored(1, mixed[0] + (d + 1) * SIDE, sizeof *mixed);
    }
}

static void attend_in_tiles(const attention_job *j, int64_t row, int64_t head, float scale) {
    head_tiles of;
    block_step queries[SIZE_STEPS], weights[MAX_LENGTH / STEP][2];
    float scores[SIDE][MAX_LENGTH] __attribute__((aligned(LINE_BYTES))), mixed[SIDE][MAX_SIZE] __attribute__((aligned(LINE_BYTES)));
    int64_t start = j->starts[row], stop = j->starts[row + 1], length = stop - start, steps = steps_of(j->size);
    turn_keys(j, start, stop, head, steps, &of);
    pair_values(j, start, stop, head, steps, &of);
    int64_t asking = j->queries ? 1 : length, line = j->queries ? row : start, each = length / asking;
    for (int64_t first = 0; first < asking; first += SIDE) {
        int64_t count = asking - first < SIDE ? asking - first : SIDE;
        float over[SIDE];
        for (int64_t s = 0; s < steps; s++)
            for (int64_t q = 0; q < count; q++)
                *(words *)queries[s][q] = j->queries ? step_of(j, j->queries, (row * j->heads + head) * j->size, s)
                                                     : step_of(j, j->from, vector(j, start + first + q, QUERY, head), s);
        written();
        score_tile(queries, &of, steps, length, scores);
        for (int64_t q = 0; q < count; q++) {
            /* Little by little, since all at once would hold up what is read meanwhile. */
            for (int64_t n = 0; n < each; n++) ahead(j, start + (first + q) * each + n, head);
            over[q] = weigh(scores[q], length, scale);
            for (int64_t key = 0; key < length; key += STEP) {
                floats low = *(const floats *)(scores[q] + key), none = {0};
                floats high = key + SIDE < length ? *(const floats *)(scores[q] + key + SIDE) : none;
                words most = rounded(low, high);
                *(words *)weights[key / STEP][0][q] = most, *(words *)weights[key / STEP][1][q] = rest_of(low, high, most);
            }
        }
        written();
        mix_tile(weights, &of, j->size, length, mixed);
        for (int64_t q = 0; q < count; q++)
            for (int64_t d = 0; d < j->size; d += LANES)
                write(j->to, ((line + first + q) * j->heads + head) * j->size + d, *(const floats *)(mixed[q] + d) * over[q],
                      j->size - d < LANES ? j->size - d : LANES, 1);
    }
}
