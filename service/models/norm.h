/* The norm of a layer over a row's numbers (Ba, Kiros and Hinton, 2016). */

#pragma once

#include "jobs.h"

#define MAX_WIDTH 8192

/* Writes the normalised numbers of `line` to a place of y. */
INLINE void normalise(const float *line, int64_t count, const float *weight, const float *bias, double epsilon, void *y, int64_t place,
                      int64_t bfloat16) {
    static const ints lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    floats sum = {0}, squares = {0}, none = {0};
    for (int64_t k = 0; k < count; k += LANES) sum += either(lane < (int32_t)(count - k), *(const floats *)(line + k), none);
    float mean = total(sum) / count;
    for (int64_t k = 0; k < count; k += LANES) {
        floats apart = either(lane < (int32_t)(count - k), *(const floats *)(line + k) - mean, none);
        squares += apart * apart;
    }
    float scale = (float)(1 / __builtin_sqrt(total(squares) / count + epsilon));
    for (int64_t k = 0; k < count; k += LANES) {
        int64_t some = count - k < LANES ? count - k : LANES;
        floats apart = (*(const floats *)(line + k) - mean) * scale;
        write(y, place + k, apart * read(weight, k, some, 0) + read(bias, k, some, 0), some, bfloat16);
    }
}
