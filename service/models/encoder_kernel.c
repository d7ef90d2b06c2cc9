/* The whole encoder over a batch in one call: between its steps no thread waits for the interpreter.

   Between the steps states are float32 where products are, and else bfloat16. */

#ifdef __AVX2__

#include <omp.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "norm.h"
#ifdef __AMX_BF16__
#include "tiles.h"
#endif

#define MODULES 6 /* of a layer, in the order: query, key, value, attention's output, up, down */
#define AT_ONCE 16 /* tokens that one thread embeds at a time */
#define WORTH_A_TEAM 256 /* tokens to embed below which waking other threads costs more than it saves */
/* Tokens that one thread takes through all layers at a time: at most as many as fit its own cache with what they become, and fewer
   towards the end, so that no thread waits long for the last of them; below the least, parts do not pay. */
#define MOST 192
#define LEAST 48
#ifdef __AMX_BF16__
#define TILED(products) ((products) == IN_BFLOAT16)
#else
#define TILED(products) 0
#endif
#define NEAR (32 << 20) /* bytes of weights that may come from the cache that threads share for each part */
#define PAGE 4096 /* what each thread writes begins on a page of its own */

typedef struct {
    const float *weight, *bias;
} norm;

/* `joined` makes queries, keys and values; in the last layer keys and values alone, and `query` makes first tokens' queries. */
typedef struct {
    layer query, joined, attention, up, down;
    norm attended, after;
} block;

enum { IN_FLOAT32, IN_BFLOAT16, IN_INT8 }; /* the linear layers' products */
enum { PLAIN, UP, DOWN }; /* linear layers: what is up has gone through GELU, and lies in tiles where those are multiplied */

typedef struct {
    int64_t blocks, hidden, heads, products, vocabulary, longest, nbytes; /* of all blocks' weights */
    double epsilon;
    const float *words, *positions, *kind; /* embeddings (vocabulary, hidden), (longest, hidden), and of the one kind of tokens */
    norm embedded;
    const block *block;
    layer pooler; /* in float32; without outputs where there is none */
} encoder;

typedef struct {
    /* What is asked for: either the states of first tokens (rows, hidden), or those of all tokens (tokens, hidden) and, beside
       them, what they are after half of the blocks. */
    float *first, *all, *halfway;
    const int64_t *ids, *positions; /* (tokens) */
    const int64_t *starts; /* (rows + 1): every row's first token, and the end */
    int64_t rows, runs, stride;
    const int64_t *bounds; /* (runs, 2): of rows that wear the same factors */
    const factors *table;  /* (runs, stride) */
    /* What else is asked for of first tokens' states: what the pooler (rows, hidden) and then the heads make of them, which are jobs
       over whole batches, of which this one begins at `row`. Both may be null. */
    float *pooled;
    const heads_job *dense, *out;
    int64_t row;
} batch;

/* Where lines of states lie, and the bounds of runs in tokens. */
typedef struct {
    char *x, *context, *other, *wide;
    int64_t *bounds;
} places;

INLINE int is_half(const encoder *e) { return e->products != IN_FLOAT32; }

/* Bytes of so many lines of states. */
INLINE int64_t lines(const encoder *e, int64_t count) { return count * e->hidden * (is_half(e) ? 2 : 4); }

/* States begin with a line of the caches: what lies across two takes twice as long to read. */
static places placed(const encoder *e, const batch *b, void *memory) {
    int64_t all = rounded_up(lines(e, b->starts[b->rows]), LINE_BYTES);
    places p;
    p.bounds = memory;
    p.x = (char *)rounded_up((int64_t)(p.bounds + 2 * b->runs), LINE_BYTES);
    p.context = p.x + all, p.other = p.context + all, p.wide = p.other + all;
    return p;
}

static void embed(const encoder *e, const batch *b, char *x) {
    int64_t tokens = b->starts[b->rows], hidden = e->hidden;
#pragma omp parallel for schedule(dynamic, AT_ONCE) if (tokens >= WORTH_A_TEAM && !omp_in_parallel())
    for (int64_t token = 0; token < tokens; token++) {
        const float *word = e->words + b->ids[token] * hidden, *position = e->positions + b->positions[token] * hidden;
        float line[MAX_WIDTH];
        for (int64_t k = 0; k < hidden; k += LANES) {
            int64_t count = hidden - k < LANES ? hidden - k : LANES;
            *(floats *)(line + k) = read(word, k, count, 0) + read(position, k, count, 0) + read(e->kind, k, count, 0);
        }
        normalise(line, hidden, e->embedded.weight, e->embedded.bias, e->epsilon, x, token * hidden, is_half(e));
    }
}

/* Whether there is anything to add. */
static int worn(const lora_job *j) {
    for (int64_t run = 0; run < j->runs; run++)
        if (changes(j, run)) return 1;
    return 0;
}

/* A layer whose parts are the modules from `module` on, over rows whose runs have these bounds; `after` may be null. */
static void linear(const encoder *e, const batch *b, const layer *l, char *y, const char *x, int64_t rows, const int64_t *bounds,
                   int64_t module, int64_t parts, int kind, const char *residual, const norm *after) {
    lora_job lora = {y, x, is_half(e), rows, l->inputs, l->outputs / parts, parts, kind == UP ? CHANGED_ROWS : 0, b->runs,
                     bounds, b->table + module, b->stride};
    product_job job = {y, x, is_half(e), rows, kind == UP, l, worn(&lora) ? &lora : 0, residual, after ? after->weight : 0,
                       after ? after->bias : 0, e->epsilon, TILED(e->products) && kind == DOWN, TILED(e->products) && kind == UP};
    if (e->products == IN_FLOAT32) float32_linear(&job);
#ifdef HAS_INT8
    if (e->products == IN_INT8) int8_linear(&job);
#endif
#ifdef __AVX512BF16__
    if (e->products == IN_BFLOAT16) bfloat16_linear(&job);
#endif
}

static void attend(const encoder *e, const batch *b, char *to, const char *from, const char *queries) {
    attention_job job = {to, from, queries, is_half(e), b->rows, e->heads, e->hidden / e->heads, b->starts};
    attention(&job);
}

/* What a layer makes of its attention's contexts and its own input x, for as many rows; `other` and `wide` are overwritten. */
static void after(const encoder *e, const batch *b, int64_t number, const char *context, char *other, char *wide, char *x,
                  const char *residual, int64_t rows, const int64_t *bounds) {
    const block *l = &e->block[number];
    int64_t module = number * MODULES + 3;
    linear(e, b, &l->attention, other, context, rows, bounds, module, 1, PLAIN, residual, &l->attended);
    linear(e, b, &l->up, wide, other, rows, bounds, module + 1, 1, UP, 0, 0);
    linear(e, b, &l->down, x, wide, rows, bounds, module + 2, 1, DOWN, other, &l->after);
}

/* Lines of states in float32. */
static void in_float(const encoder *e, float *to, const char *from, int64_t lines) {
    for (int64_t k = 0, count = lines * e->hidden; k < count; k += LANES) {
        int64_t some = count - k < LANES ? count - k : LANES;
        write(to, k, read(from, k, some, is_half(e)), some, 0);
    }
}

/* What the pooler makes of first tokens' states, and the heads of that, or of the states where they have dense layers. */
static void answer(const encoder *e, const batch *b) {
    lora_job lora = {(char *)b->pooled, (const char *)b->first, 0, b->rows, e->hidden, e->hidden, 1, 0, b->runs, b->bounds,
                     b->table + e->blocks * MODULES, b->stride};
    product_job job = {b->pooled, b->first, 0, b->rows, 0, &e->pooler, e->pooler.outputs && worn(&lora) ? &lora : 0};
    if (e->pooler.outputs) float32_linear(&job);
    if (b->dense) heads_over(b->dense, b->row, b->row + b->rows);
    if (b->out) heads_over(b->out, b->row, b->row + b->rows);
}

/* The last block, of whose states first tokens' alone are asked for. */
static void last_of_first(const encoder *e, const batch *b, const places *p) {
    int64_t number = e->blocks - 1, module = number * MODULES, tokens = b->starts[b->rows];
    const block *l = &e->block[number];
    char *first = p->context, *queries = p->other, *context = p->x, *result = p->x;
    for (int64_t row = 0; row < b->rows; row++)
        memcpy(first + lines(e, row), p->x + lines(e, b->starts[row]), lines(e, 1));
    linear(e, b, &l->joined, p->wide, p->x, tokens, p->bounds, module + 1, 2, PLAIN, 0, 0);
    linear(e, b, &l->query, queries, first, b->rows, b->bounds, module, 1, PLAIN, 0, 0);
    attend(e, b, context, p->wide, queries);
    after(e, b, number, context, p->other, p->wide, result, first, b->rows, b->bounds);
    in_float(e, b->first, result, b->rows);
    if (b->pooled) answer(e, b);
}

/* The last block for all tokens: queries are laid before keys and values, from the last token on, which overwrites none unread. */
static void last_of_all(const encoder *e, const batch *b, const places *p) {
    int64_t number = e->blocks - 1, module = number * MODULES, tokens = b->starts[b->rows];
    linear(e, b, &e->block[number].joined, p->wide, p->x, tokens, p->bounds, module + 1, 2, PLAIN, 0, 0);
    linear(e, b, &e->block[number].query, p->other, p->x, tokens, p->bounds, module, 1, PLAIN, 0, 0);
    for (int64_t token = tokens - 1; token >= 0; token--) {
        memmove(p->wide + lines(e, 3 * token + 1), p->wide + lines(e, 2 * token), lines(e, 2));
        memcpy(p->wide + lines(e, 3 * token), p->other + lines(e, token), lines(e, 1));
    }
    attend(e, b, p->context, p->wide, 0);
    after(e, b, number, p->context, p->other, p->wide, p->x, p->x, tokens, p->bounds);
    in_float(e, b->all, p->x, tokens);
}

/* Numbers of so many lines of what is up, and of what may be read after them. */
INLINE int64_t up(const encoder *e, int64_t lines) {
#ifdef __AMX_BF16__
    if (TILED(e->products)) return in_tiles_of(lines, e->block->up.outputs) + TILE_BYTES;
#endif
    return lines * e->block->up.outputs;
}

/* Bytes that a part of so many tokens, rows and runs needs; whole pages. */
static int64_t room(const encoder *e, int64_t tokens, int64_t rows, int64_t runs) {
    int64_t joined = 3 * e->hidden * tokens, wide = up(e, tokens), widest = joined > wide ? joined : wide;
    int64_t states = 3 * rounded_up(lines(e, tokens), LINE_BYTES) + (is_half(e) ? 2 : 4) * widest;
    return rounded_up(states + 8 * (rows + 1 + 4 * runs) + LINE_BYTES, PAGE);
}

/* Rows `first` to `stop` of a batch as a batch of their own, whose starts and bounds lie in `*memory`, which then is what is left. */
static batch part(const encoder *e, const batch *b, int64_t first, int64_t stop, void **memory) {
    int64_t start = b->starts[first], *starts = *memory, *bounds = starts + stop - first + 1, run = 0;
    for (int64_t row = first; row <= stop; row++) starts[row - first] = b->starts[row] - start;
    while (run < b->runs && b->bounds[2 * run + 1] <= first) run++;
    batch found = {b->first ? b->first + first * e->hidden : 0, b->all ? b->all + start * e->hidden : 0,
                   b->halfway ? b->halfway + start * e->hidden : 0, b->ids + start, b->positions + start, starts, stop - first, 0,
                   b->stride, bounds, b->table + run * b->stride, b->pooled ? b->pooled + first * e->hidden : 0, b->dense, b->out,
                   b->row + first};
    for (; run < b->runs && b->bounds[2 * run] < stop; run++, found.runs++) {
        *bounds++ = b->bounds[2 * run] > first ? b->bounds[2 * run] - first : 0;
        *bounds++ = (b->bounds[2 * run + 1] < stop ? b->bounds[2 * run + 1] : stop) - first;
    }
    *memory = bounds;
    return found;
}

/* The states of rows `first` to `stop`, in memory of `room`'s size. */
static void run(const encoder *e, const batch *whole, int64_t first, int64_t stop, void *memory) {
    batch b = part(e, whole, first, stop, &memory);
    places p = placed(e, &b, memory);
    int64_t tokens = b.starts[b.rows];
    for (int64_t n = 0; n < 2 * b.runs; n++) p.bounds[n] = b.starts[b.bounds[n]];
    embed(e, &b, p.x);
    for (int64_t number = 0; number < e->blocks; number++) {
        if (b.halfway && number == e->blocks / 2) in_float(e, b.halfway, p.x, tokens);
        if (number == e->blocks - 1) break;
        linear(e, &b, &e->block[number].joined, p.wide, p.x, tokens, p.bounds, number * MODULES, 3, PLAIN, 0, 0);
        attend(e, &b, p.context, p.wide, 0);
        after(e, &b, number, p.context, p.other, p.wide, p.x, p.x, tokens, p.bounds);
    }
    if (b.all)
        last_of_all(e, &b, &p);
    else
        last_of_first(e, &b, &p);
}

/* Shares rows out into parts, each for one thread, which then waits for no other between steps; their first rows go to `firsts`.
   Returns how many parts there are: none where all threads had better share each step, since the batch is small, or its rows too
   uneven, or weights would come from too far for each part. `most` becomes the tokens of the largest part. */
static int64_t shared_out(const encoder *e, const batch *b, int64_t *firsts, int64_t *most) {
    int64_t threads = omp_get_max_threads(), tokens = b->starts[b->rows], busy[threads], count = 0, last = 0;
    if (threads == 1 || tokens < LEAST * threads || e->nbytes > NEAR) return 0;
    memset(busy, 0, sizeof busy), *most = 0;
    for (int64_t row = 0; row < b->rows; count++) {
        int64_t start = b->starts[row], goal = (tokens - start) / (2 * threads), next = 0;
        goal = goal > MOST ? MOST : goal < LEAST ? LEAST : goal;
        firsts[count] = row++;
        while (row < b->rows && b->starts[row] + b->starts[row + 1] <= 2 * (start + goal)) row++;
        for (int64_t t = 1; t < threads; t++) next = busy[t] < busy[next] ? t : next;
        busy[next] += b->starts[row] - start;
        *most = b->starts[row] - start > *most ? b->starts[row] - start : *most, last = busy[next] > last ? busy[next] : last;
    }
    firsts[count] = b->rows;
    return 4 * last * threads <= 5 * tokens ? count : 0;
}

static int readable(const encoder *e, const batch *b) {
    if ((b->dense && !heads_readable(b->dense)) || (b->out && !heads_readable(b->out))) return 0;
    for (int64_t n = 0; n < b->runs * b->stride; n++)
        if (b->table[n].rank > MAX_RANK) return 0;
    for (int64_t token = 0; token < b->starts[b->rows]; token++)
        if ((uint64_t)b->ids[token] >= (uint64_t)e->vocabulary || (uint64_t)b->positions[token] >= (uint64_t)e->longest) return 0;
    return 1;
}

/* The last batch's memory, whose size lies before it: from the system it would come with a page fault for every 4 KB. */
static _Atomic(char *) spare;

static char *memory_of(int64_t size) {
    char *found = atomic_exchange(&spare, 0);
    if (found && *(int64_t *)found >= size) return found + PAGE;
    free(found);
    found = aligned_alloc(PAGE, PAGE + size);
    if (!found) return 0;
    *(int64_t *)found = size;
    return found + PAGE;
}

static void keep(char *memory) { free(atomic_exchange(&spare, memory - PAGE)); }

static int forward(const encoder *e, const batch *b, int64_t *firsts) {
    int64_t most, count = shared_out(e, b, firsts, &most);
    int64_t each = room(e, count ? most : b->starts[b->rows], b->rows, b->runs);
    char *memory = memory_of(count ? omp_get_max_threads() * each : each);
    if (!memory) return 2;
    if (!count) {
        run(e, b, 0, b->rows, memory);
    } else {
#pragma omp parallel for schedule(dynamic, 1)
        for (int64_t n = 0; n < count; n++) run(e, b, firsts[n], firsts[n + 1], memory + each * omp_get_thread_num());
    }
    keep(memory);
    return 0;
}

/* The states that are asked for; the caller has seen to it that the sizes of all layers and rows are ones that the kernels take.
   Returns 1 for a rank, a token, a position or a head beyond what there is, and 2 where there is no memory; nothing is written then. */
int encoder_forward(const encoder *e, const batch *b) {
    if (!readable(e, b)) return 1;
    int64_t *firsts = malloc(8 * (b->rows + 1));
    int failed = firsts ? forward(e, b, firsts) : 2;
    free(firsts);
    return failed;
}
#endif
