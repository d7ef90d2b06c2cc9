/* What the kernels' calls work on. Tensors hold bfloat16 or float32, weights also float16 or int8, and their rows lie end to end. A call returns 0, or 1 for
   sizes beyond what its stack is laid out for; nothing is written then. */

#pragma once

#include "vectors.h"

#define MAX_RANK 1024

/* One module's factors, in the type of x and y: a (rank, inputs) and b (rank, outputs), rows padded with zeros, or in tiles where the
   layer's kernel reads those. Rank 0: none. */
typedef struct {
    const char *a, *b;
    int64_t rank;
} factors;

enum { EVERY_ROW = 1, CHANGED_ROWS }; /* that GELU goes over, where it is asked for at all */

/* y (rows, parts · outputs) += x (rows, inputs) aᵀ b for runs of rows that each wear their own factors, then GELU. */
typedef struct {
    char *y;
    const char *x;
    int64_t bfloat16, rows, inputs, outputs, parts, gelu, runs;
    const int64_t *bounds;   /* (runs, 2): first row, and the one after the last */
    const factors *table;    /* (runs, stride): of each run, of each module; `parts` consecutive ones are read */
    int64_t stride;
} lora_job;

/* Whether a run has factors for any of the parts. */
INLINE int changes(const lora_job *j, int64_t run) {
    for (int64_t part = 0; part < j->parts; part++)
        if (j->table[run * j->stride + part].rank) return 1;
    return 0;
}

/* Attention in each row: `from` (tokens, 3, heads, size) has queries, keys and values, and `to` is (tokens, heads, size).
   Or `queries` (rows, heads, size) has one for each row; `from` is (tokens, 2, heads, size) and `to` (rows, heads, size) then. */
typedef struct {
    void *to;
    const void *from, *queries;
    int64_t bfloat16, rows, heads, size;
    const int64_t *starts; /* (rows + 1): every row's first token, and the end */
} attention_job;

/* A frozen linear layer in the order that its kernel reads: strips of outputs, of groups of inputs, of outputs, of inputs, or tiles;
   padded with zeros, as bias, scales and sums are. `smoothing` (inputs), `scales` and `sums` (outputs) are int8's. */
typedef struct {
    int64_t inputs, outputs;
    const void *values;
    const float *bias, *smoothing, *scales;
    const int32_t *sums;
} layer;

/* y (rows, outputs) = x (rows, inputs) Wᵀ + bias; then the low-rank products, where there are any, and GELU where it is asked for;
   then, where there is a `residual` of y's shape, the norm of the sum with it. */
typedef struct {
    void *y;
    const void *x;
    int64_t bfloat16, rows, gelu;
    const layer *layer;
    const lora_job *lora; /* over the same x and y; it has GELU go over CHANGED_ROWS, and the product over the others, or, where products are in its sums, over all */
    const void *residual;
    const float *weight, *bias; /* the norm's */
    double epsilon;
    int64_t x_tiled, y_tiled; /* whether they lie in tiles, which only kernels of those know */
} product_job;

/* A run's own linear layer in float32: weight (outputs, inputs) and bias (outputs). No outputs: its rows are left alone. */
typedef struct {
    const float *weight, *bias;
    int64_t outputs;
} head_layer;

/* y = x Wᵀ + bias, or of x's tanh, by each run's own layer. There are `rows` of x and y: x's have `inputs` numbers, y's `width`, of
   which a run's first `outputs` are written. */
typedef struct {
    float *y;
    const float *x;
    int64_t rows, width, inputs, tanh, runs;
    const int64_t *bounds; /* (runs, 2): first row, and the one after the last */
    const head_layer *layers;
} heads_job;

/* Whether all runs are of its rows and no wider than they, and there is room for the tangents beside its inputs. */
int heads_readable(const heads_job *j);
/* Rows `first` to `stop`. */
void heads_over(const heads_job *j, int64_t first, int64_t stop);
void lora_tile(const lora_job *j, int64_t first, int64_t stop);
int attention(const attention_job *j);
#if defined(__AVX512F__) && !defined(__clang__) /* whose pragma for its instructions clang does not read */
#define HAS_INT8
int int8_linear(const product_job *j);
#endif
int float32_linear(const product_job *j);
int float16_linear(const product_job *j);
int bfloat16_linear(const product_job *j);
