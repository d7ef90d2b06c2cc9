/* The norm of a layer over a row's numbers (Ba, Kiros and Hinton, 2016). */

#pragma once

#include "jobs.h"

#define MAX_WIDTH 8192

#define APART 4 /* sums at a time: one would wait for itself with every vector */

/* Writes the normalised numbers of `line`, after whose end there are zeros to the end of a vector, to a place of y. */
INLINE void normalise(const float *line, int64_t count, const float *weight, const float *bias, double epsilon, void *y, int64_t place,
                      int64_t bfloat16) {
    static const ints lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const floats *all = (const floats *)line;
    floats sum[APART] = {{0}}, squares[APART] = {{0}}, none = {0};
    int64_t whole = count / LANES, vectors = (count + LANES - 1) / LANES, k = 0;
    for (; k + APART <= whole; k += APART)
        UNROLLED for (int i = 0; i < APART; i++) sum[i] += all[k + i];
    for (; k < vectors; k++) sum[0] += all[k];
    float mean = total((sum[0] + sum[1]) + (sum[2] + sum[3])) / count;
    for (k = 0; k + APART <= whole; k += APART)
        UNROLLED for (int i = 0; i < APART; i++) squares[i] += (all[k + i] - mean) * (all[k + i] - mean);
    for (; k < vectors; k++) {
        floats apart = either(lane < (int32_t)(count - k * LANES), all[k] - mean, none);
        squares[0] += apart * apart;
    }
    float scale = (float)(1 / __builtin_sqrt(total((squares[0] + squares[1]) + (squares[2] + squares[3])) / count + epsilon));
    for (k = 0; k < count; k += LANES) {
        int64_t some = count - k < LANES ? count - k : LANES;
        floats apart = (*(const floats *)(line + k) - mean) * scale;
        write(y, place + k, apart * read(weight, k, some, 0) + read(bias, k, some, 0), some, bfloat16);
    }
}
