/* The whole encoder over a batch in one call: between its steps no thread waits for the interpreter.

   States are bfloat16 between the steps, and lie in memory that the caller lends. */

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC target("arch=x86-64-v4,avx512bf16")
#define VARIANT(name) name##_bf16

#include <omp.h>

#include "norm.h"

#define MODULES 6 /* of a layer, in the order: query, key, value, attention's output, up, down */
#define AT_ONCE 16 /* tokens that one thread embeds at a time */
#define WORTH_A_TEAM 256 /* tokens to embed below which waking other threads costs more than it saves */
#define PART 96 /* tokens that one thread takes through all layers at a time: what they become fits its own cache */
#define LEAST 48 /* tokens for each thread below which parts do not pay */
#define NEAR (32 << 20) /* bytes of weights that stay in the cache that threads share */
#define LINE 4096 /* what each thread writes begins on a page of its own */

typedef struct {
    const float *weight, *bias;
} norm;

/* `joined` makes queries, keys and values; in the last layer keys and values alone, and `query` makes first tokens' queries. */
typedef struct {
    layer query, joined, attention, up, down;
    norm attended, after;
} block;

typedef struct {
    int64_t blocks, hidden, heads, int8, vocabulary, longest, nbytes; /* of all blocks' weights */
    double epsilon;
    const float *words, *positions, *kind; /* embeddings (vocabulary, hidden), (longest, hidden), and of the one kind of tokens */
    norm embedded;
    const block *block;
} encoder;

typedef struct {
    float *states; /* (rows, hidden): what is asked for */
    char *memory;
    const int64_t *ids, *positions; /* (tokens) */
    const int64_t *starts; /* (rows + 1): every row's first token, and the end */
    int64_t rows, runs, stride;
    const int64_t *bounds; /* (runs, 2): of rows that wear the same factors */
    const factors *table;  /* (runs, stride) */
} batch;

/* Lines of bfloat16 in the lent memory, and the bounds of runs in tokens. */
typedef struct {
    uint16_t *x, *context, *other, *wide;
    int64_t *bounds;
} places;

static places laid_out(const encoder *e, const batch *b) {
    int64_t line = b->starts[b->rows] * e->hidden;
    places p;
    p.bounds = (int64_t *)b->memory;
    p.x = (uint16_t *)(p.bounds + 2 * b->runs);
    p.context = p.x + line, p.other = p.context + line, p.wide = p.other + line;
    return p;
}

static void embed(const encoder *e, const batch *b, uint16_t *x) {
    int64_t tokens = b->starts[b->rows], hidden = e->hidden;
#pragma omp parallel for schedule(dynamic, AT_ONCE) if (tokens >= WORTH_A_TEAM && !omp_in_parallel())
    for (int64_t token = 0; token < tokens; token++) {
        const float *word = e->words + b->ids[token] * hidden, *position = e->positions + b->positions[token] * hidden;
        float line[MAX_WIDTH];
        for (int64_t k = 0; k < hidden; k += LANES) {
            int64_t count = hidden - k < LANES ? hidden - k : LANES;
            *(floats *)(line + k) = read(word, k, count, 0) + read(position, k, count, 0) + read(e->kind, k, count, 0);
        }
        normalise(line, hidden, e->embedded.weight, e->embedded.bias, e->epsilon, x, token * hidden, 1);
    }
}

/* Whether there is anything to add. */
static int worn(const lora_job *j) {
    for (int64_t run = 0; run < j->runs; run++)
        if (changes(j, run)) return 1;
    return 0;
}

/* A layer whose parts are the modules from `module` on, over rows whose runs have these bounds; `after` may be null. */
static void linear(const encoder *e, const batch *b, const layer *l, uint16_t *y, const uint16_t *x, int64_t rows, const int64_t *bounds,
                   int64_t module, int64_t parts, int gelu, const uint16_t *residual, const norm *after) {
    lora_job lora = {(char *)y, (const char *)x, 1, rows, l->inputs, l->outputs / parts, parts, gelu ? CHANGED_ROWS : 0, b->runs,
                     bounds, b->table + module, b->stride};
    product_job job = {y, x, 1, rows, gelu, l, worn(&lora) ? &lora : 0, residual,
                       after ? after->weight : 0, after ? after->bias : 0, e->epsilon};
    if (e->int8)
        VARIANT(int8_linear)(&job);
    else
        bfloat16_linear(&job);
}

static void attend(const encoder *e, const batch *b, uint16_t *to, const uint16_t *from, const uint16_t *queries) {
    attention_job job = {to, from, queries, 1, b->rows, e->heads, e->hidden / e->heads, b->starts};
    VARIANT(attention)(&job);
}

/* What a layer makes of its attention's contexts and its own input x, for as many rows; `other` and `wide` are overwritten. */
static void after(const encoder *e, const batch *b, int64_t number, const uint16_t *context, uint16_t *other, uint16_t *wide, uint16_t *x,
                  const uint16_t *residual, int64_t rows, const int64_t *bounds) {
    const block *l = &e->block[number];
    int64_t module = number * MODULES + 3;
    linear(e, b, &l->attention, other, context, rows, bounds, module, 1, 0, residual, &l->attended);
    linear(e, b, &l->up, wide, other, rows, bounds, module + 1, 1, 1, 0, 0);
    linear(e, b, &l->down, x, wide, rows, bounds, module + 2, 1, 0, other, &l->after);
}

static void last(const encoder *e, const batch *b, const places *p) {
    int64_t number = e->blocks - 1, module = number * MODULES, tokens = b->starts[b->rows], count = b->rows * e->hidden;
    const block *l = &e->block[number];
    uint16_t *first = p->context, *queries = p->other, *context = p->x, *result = p->x;
    for (int64_t row = 0; row < b->rows; row++)
        memcpy(first + row * e->hidden, p->x + b->starts[row] * e->hidden, 2 * e->hidden);
    linear(e, b, &l->joined, p->wide, p->x, tokens, p->bounds, module + 1, 2, 0, 0, 0);
    linear(e, b, &l->query, queries, first, b->rows, b->bounds, module, 1, 0, 0, 0);
    attend(e, b, context, p->wide, queries);
    after(e, b, number, context, p->other, p->wide, result, first, b->rows, b->bounds);
    for (int64_t k = 0; k < count; k += LANES) {
        int64_t some = count - k < LANES ? count - k : LANES;
        write(b->states, k, read(result, k, some, 1), some, 0);
    }
}

/* The states of a batch, in the memory that comes with it. */
static void run(const encoder *e, const batch *b) {
    places p = laid_out(e, b);
    for (int64_t n = 0; n < 2 * b->runs; n++) p.bounds[n] = b->starts[b->bounds[n]];
    embed(e, b, p.x);
    for (int64_t number = 0; number + 1 < e->blocks; number++) {
        const block *l = &e->block[number];
        linear(e, b, &l->joined, p.wide, p.x, b->starts[b->rows], p.bounds, number * MODULES, 3, 0, 0, 0);
        attend(e, b, p.context, p.wide, 0);
        after(e, b, number, p.context, p.other, p.wide, p.x, p.x, b->starts[b->rows], p.bounds);
    }
    last(e, b, &p);
}

/* Bytes that a batch of so many tokens, rows and runs needs, its own starts and bounds among them; whole lines. */
static int64_t room(const encoder *e, int64_t tokens, int64_t rows, int64_t runs) {
    int64_t joined = 3 * e->hidden, wide = e->block->up.outputs, widest = joined > wide ? joined : wide;
    return (2 * tokens * (3 * e->hidden + widest) + 8 * (rows + 1 + 4 * runs) + LINE - 1) / LINE * LINE;
}

/* Rows `first` to `stop` of a batch as a batch of their own, whose starts and bounds are written to its memory. */
static batch part(const encoder *e, const batch *b, int64_t first, int64_t stop, char *memory) {
    int64_t start = b->starts[first], *starts = (int64_t *)memory, *bounds = starts + stop - first + 1, run = 0;
    for (int64_t row = first; row <= stop; row++) starts[row - first] = b->starts[row] - start;
    while (run < b->runs && b->bounds[2 * run + 1] <= first) run++;
    batch found = {b->states + first * e->hidden, 0, b->ids + start, b->positions + start, starts, stop - first, 0, b->stride,
                   bounds, b->table + run * b->stride};
    for (; run < b->runs && b->bounds[2 * run] < stop; run++, found.runs++) {
        *bounds++ = b->bounds[2 * run] > first ? b->bounds[2 * run] - first : 0;
        *bounds++ = (b->bounds[2 * run + 1] < stop ? b->bounds[2 * run + 1] : stop) - first;
    }
    found.memory = (char *)bounds;
    return found;
}

/* How many parts a batch goes through in, each on one thread, which then waits for no other between steps: none where all threads
   had better share each step, since it is small, or its rows too uneven, or weights would come from far memory for each part. */
static int64_t parts(const encoder *e, const batch *b) {
    int64_t threads = omp_get_max_threads(), tokens = b->starts[b->rows], each = PART * threads;
    return threads == 1 || tokens < LEAST * threads || e->nbytes > NEAR ? 0 : (tokens + each - 1) / each * threads;
}

/* Shares rows out into `count` parts of about as many tokens, whose first rows go to `firsts`. Returns the tokens of the largest, or
   0 where one thread would be busy a good deal longer than the others. */
static int64_t shared_out(const batch *b, int64_t count, int64_t *firsts) {
    int64_t threads = omp_get_max_threads(), tokens = b->starts[b->rows], busy[threads], row = 0, most = 0, last = 0;
    memset(busy, 0, sizeof busy);
    for (int64_t n = 0; n < count; n++) {
        int64_t goal = tokens * (n + 1) / count, next = 0;
        firsts[n] = row;
        while (row < b->rows && (n + 1 == count || b->starts[row] + b->starts[row + 1] < 2 * goal)) row++;
        int64_t here = b->starts[row] - b->starts[firsts[n]];
        for (int64_t t = 1; t < threads; t++) next = busy[t] < busy[next] ? t : next;
        busy[next] += here;
        most = here > most ? here : most, last = busy[next] > last ? busy[next] : last;
    }
    firsts[count] = b->rows;
    return 4 * last * threads <= 5 * tokens ? most : 0;
}

/* Bytes of memory that a batch needs. */
int64_t encoder_room(const encoder *e, const batch *b) {
    int64_t count = parts(e, b), firsts[count + 1], most = count ? shared_out(b, count, firsts) : 0;
    return most ? omp_get_max_threads() * room(e, most, b->rows, b->runs) : room(e, b->starts[b->rows], b->rows, b->runs);
}

static int readable(const encoder *e, const batch *b) {
    for (int64_t n = 0; n < b->runs * b->stride; n++)
        if (b->table[n].rank > MAX_RANK) return 0;
    for (int64_t token = 0; token < b->starts[b->rows]; token++)
        if ((uint64_t)b->ids[token] >= (uint64_t)e->vocabulary || (uint64_t)b->positions[token] >= (uint64_t)e->longest) return 0;
    return 1;
}

/* Each row's first-token state; the caller has seen to it that the sizes of all layers and rows are ones that the kernels take.
   Returns 1 for a rank, a token or a position beyond what there is; nothing is written then. */
int encoder_forward(const encoder *e, const batch *b) {
    if (!readable(e, b)) return 1;
    int64_t count = parts(e, b), firsts[count + 1], most = count ? shared_out(b, count, firsts) : 0;
    if (!most) {
        run(e, b);
        return 0;
    }
    int64_t each = room(e, most, b->rows, b->runs);
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t n = 0; n < count; n++) {
        if (firsts[n] == firsts[n + 1]) continue;
        batch own = part(e, b, firsts[n], firsts[n + 1], b->memory + each * omp_get_thread_num());
        run(e, &own);
    }
    return 0;
}
#endif
