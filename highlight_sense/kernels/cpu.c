// The fused operations of highlight_sense.kernels on a CPU. GCC compiles this file when it is first needed;
// nbs/machinery/kernels/cpu.ipynb builds it, calls it and tests it.
//
// -DLANES=4, 8 or 16: floats in a vector. Vectors run along the channels, so LANES must divide their number.
// -DBF16:             feature maps and recurrent weights are bfloat16; without it, float.
//
// All arithmetic is in float; only a stored `value` is rounded. Each row of each clip is summed separately, so the
// number of threads does not affect rounding.

#include <stdint.h>
#include <string.h>
#include <omp.h>

#define INLINE static inline __attribute__((always_inline))

int most_threads(void) { return omp_get_max_threads(); }


// ---- Vectors of floats ----

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef uint32_t bits __attribute__((vector_size(4 * LANES)));
typedef int32_t flags __attribute__((vector_size(4 * LANES)));   // -1 where a condition holds, else 0
typedef uint16_t halves __attribute__((vector_size(2 * LANES)));

#define FOR_EACH(c, width) for (long c = 0; c < (width); c += LANES)

// memcpy compiles to one unaligned load or store
INLINE floats load_floats(const float *at) { floats x; memcpy(&x, at, sizeof x); return x; }
INLINE void store_floats(float *at, floats x) { memcpy(at, &x, sizeof x); }

#ifdef BF16
typedef uint16_t value;  // the upper half of a float

INLINE floats load(const value *at)
{
    halves upper;
    memcpy(&upper, at, sizeof upper);
    return (floats)(__builtin_convertvector(upper, bits) << 16);
}

INLINE void store(value *at, floats x)  // rounded to nearest, ties to even
{
    bits whole = (bits)x;
    bits rounded = (whole + 0x7fff + (whole >> 16 & 1)) >> 16;
    bits nan = (bits)(x != x) & 0x7fc0;  // rounding could turn a NaN into infinity
    halves upper = __builtin_convertvector(rounded | nan, halves);
    memcpy(at, &upper, sizeof upper);
}
#else
typedef float value;
#define load load_floats
#define store store_floats
#endif

INLINE floats where(flags condition, floats x) { return (floats)((flags)x & condition); }  // x, or 0
INLINE flags all_if(int condition) { return (flags){0} - !!condition; }
INLINE flags passes_relu(floats x) { return ~(x <= 0); }  // passes a NaN on, so that it stays visible


// ---- Feature maps ----

typedef struct {            // one pass over feature maps; a pointer that the pass does not need is null
    const value *maps;      // [clips][bands][frames][channels], output of the convolution
    const value *pooled;    // [clips][bands / down][frames / 2][channels], output of norm_pool
    const value *grad;      // gradient of `pooled`
    const float *scale;     // [clips or 1][channels], the norm's factor
    const float *offset;    // [clips or 1][channels], the norm's offset; for the gradient, that of through_moments
    const float *slope;     // [clips or 1][channels], for the gradient, the slope of through_moments
    const float *mask;      // [clips][frames], 0 in the padding; null: no padding
    value *out;             // same layout as `pooled`, or as `maps`
    double *sums;           // [clips][rows][2][channels]
    long clips, bands, frames, channels;
    long per_clip;          // distance between the factors of two clips: channels, or 0 if all clips share them
    long down;              // bands in a pooling window, 1 or 2; a window always has 2 frames
} MapsPass;

// A long sum in float loses precision, so only this many values are summed in float; their sum is added to a double.
enum { AT_ONCE = 64 };

INLINE void add_to(double *sum, floats x) { for (int i = 0; i < LANES; i++) sum[i] += x[i]; }

// One row of sum_maps: the sum and the sum of squares of each channel, without the padding.
INLINE void sum_row(const MapsPass p, long row)
{
    const float *real = p.mask ? p.mask + row / p.bands * p.frames : 0;
    const value *maps = p.maps + row * p.frames * p.channels;
    double *total = p.sums + row * 2 * p.channels, *squares = total + p.channels;
    memset(total, 0, 2 * p.channels * sizeof(double));
    for (long begin = 0; begin < p.frames; begin += AT_ONCE)
        FOR_EACH(c, p.channels) {
            floats sum = {0}, square = {0};
            for (long t = begin; t < p.frames && t < begin + AT_ONCE; t++) {
                if (real && real[t] == 0) continue;
                floats x = load(maps + t * p.channels + c);
                sum += x;
                square += x * x;
            }
            add_to(total + c, sum);
            add_to(squares + c, square);
        }
}

void sum_maps(const MapsPass *pass)
{
    long rows = pass->clips * pass->bands;
    #pragma omp parallel for
    for (long row = 0; row < rows; row++) sum_row(*pass, row);
}


// ---- Pooling windows ----

typedef struct {               // two frames of one band or of two bands, and which is the largest
    floats first, second;      // a frame and the next one, in this band
    floats third, fourth;      // the same frames, in the next band
    floats highest;
    flags second_is, third_is, fourth_is;  // larger than all before it, in this order
} Window;

// Raise `highest` to x where x is larger. As in PyTorch, the first of equal values wins, and a NaN always wins.
INLINE flags raise(floats *highest, floats x)
{
    flags more = (x > *highest) | (x != x);
    *highest = (floats)(((flags)x & more) | ((flags)*highest & ~more));
    return more;
}

// `down` is a constant wherever this is called, so the compiler makes separate code for each kind of window.
INLINE Window read_window(const value *at, long next_frame, long next_band, const int down)
{
    Window w = {0};
    w.highest = w.first = load(at);
    w.second = load(at + next_frame);
    w.second_is = raise(&w.highest, w.second);
    if (down == 1) return w;
    w.third = load(at + next_band);
    w.fourth = load(at + next_band + next_frame);
    w.third_is = raise(&w.highest, w.third);
    w.fourth_is = raise(&w.highest, w.fourth);
    return w;
}

// One row of norm_pool: the largest value of each window, normalised, then ReLU; 0 in the padding.
INLINE void pool_row(const MapsPass p, long row, const int down)
{
    long bands = p.bands / down, steps = p.frames / 2, next_band = p.frames * p.channels;
    long clip = row / bands, band = row % bands * down;
    const float *scale = p.scale + clip * p.per_clip, *offset = p.offset + clip * p.per_clip;
    const float *real = p.mask ? p.mask + clip * p.frames : 0;
    const value *maps = p.maps + (clip * p.bands + band) * next_band;
    value *out = p.out + row * steps * p.channels;
    for (long t = 0; t < steps; t++, maps += 2 * p.channels, out += p.channels) {
        if (real && real[2 * t] == 0) { memset(out, 0, p.channels * sizeof(value)); continue; }
        FOR_EACH(c, p.channels) {
            floats highest = read_window(maps + c, p.channels, next_band, down).highest;
            floats x = highest * load_floats(scale + c) + load_floats(offset + c);
            store(out + c, where(passes_relu(x), x));
        }
    }
}

void norm_pool(const MapsPass *pass)
{
    long rows = pass->clips * (pass->bands / pass->down);
    #pragma omp parallel for
    for (long row = 0; row < rows; row++)
        if (pass->down == 2) pool_row(*pass, row, 2); else pool_row(*pass, row, 1);
}


// ---- The gradient of norm_pool ----

// One row of sum_slopes: the sum of the gradient where ReLU passes it on, and of its product with the largest value.
INLINE void slope_row(const MapsPass p, long row, const int down)
{
    long bands = p.bands / down, steps = p.frames / 2, next_band = p.frames * p.channels;
    const value *maps = p.maps + (row / bands * p.bands + row % bands * down) * next_band;
    double *total = p.sums + row * 2 * p.channels, *weighted = total + p.channels;
    memset(total, 0, 2 * p.channels * sizeof(double));
    for (long begin = 0; begin < steps; begin += AT_ONCE)
        FOR_EACH(c, p.channels) {
            floats sum = {0}, product = {0};
            for (long t = begin; t < steps && t < begin + AT_ONCE; t++) {
                long at = (row * steps + t) * p.channels + c;
                floats arriving = where(passes_relu(load(p.pooled + at)), load(p.grad + at));
                sum += arriving;
                product += arriving * read_window(maps + 2 * t * p.channels + c, p.channels, next_band, down).highest;
            }
            add_to(total + c, sum);
            add_to(weighted + c, product);
        }
}

void sum_slopes(const MapsPass *pass)
{
    long rows = pass->clips * (pass->bands / pass->down);
    #pragma omp parallel for
    for (long row = 0; row < rows; row++)
        if (pass->down == 2) slope_row(*pass, row, 2); else slope_row(*pass, row, 1);
}

// The part of a real value's gradient that comes through mean and variance: a line, linear in the value.
INLINE floats through_moments(const MapsPass p, floats x, long factors, flags real)
{
    return where(real, x * load_floats(p.slope + factors) + load_floats(p.offset + factors));
}

// Gradient of one row of windows: the incoming gradient goes to the largest value of each window.
INLINE void windows_gradient(const MapsPass p, long clip, long band, const int down)
{
    long bands = p.bands / down, steps = p.frames / 2, next_band = p.frames * p.channels, next_frame = p.channels;
    const float *real = p.mask ? p.mask + clip * p.frames : 0;
    for (long t = 0; t < steps; t++) {
        long first = (clip * p.bands + band * down) * next_band + 2 * t * next_frame;
        long pooled = ((clip * bands + band) * steps + t) * p.channels;
        flags now = all_if(!real || real[2 * t]), next = all_if(!real || real[2 * t + 1]);
        FOR_EACH(c, p.channels) {
            Window w = read_window(p.maps + first + c, next_frame, next_band, down);
            long factors = clip * p.per_clip + c;
            floats grad = load(p.grad + pooled + c) * load_floats(p.scale + factors);
            floats arriving = where(passes_relu(load(p.pooled + pooled + c)), grad);
            flags in_next_band = w.third_is | w.fourth_is;
            value *out = p.out + first + c;
            store(out, where(~(w.second_is | in_next_band), arriving) + through_moments(p, w.first, factors, now));
            store(out + next_frame,
                  where(w.second_is & ~in_next_band, arriving) + through_moments(p, w.second, factors, next));
            if (down == 1) continue;
            store(out + next_band, where(w.third_is & ~w.fourth_is, arriving) + through_moments(p, w.third, factors, now));
            store(out + next_band + next_frame, where(w.fourth_is, arriving) + through_moments(p, w.fourth, factors, next));
        }
    }
}

// Gradient of the frames from `begin` on, which are in no window: only the part through mean and variance.
INLINE void rest_gradient(const MapsPass p, long clip, long band, long begin)
{
    const float *real = p.mask ? p.mask + clip * p.frames : 0;
    for (long t = begin; t < p.frames; t++) {
        long at = ((clip * p.bands + band) * p.frames + t) * p.channels;
        flags now = all_if(!real || real[t]);
        FOR_EACH(c, p.channels) store(p.out + at + c, through_moments(p, load(p.maps + at + c), clip * p.per_clip + c, now));
    }
}

// One row of windows, or the last band alone if the number of bands is odd.
INLINE void gradient_row(const MapsPass p, long clip, long row, const int down)
{
    int whole = (row + 1) * down <= p.bands;
    if (whole) windows_gradient(p, clip, row, down);
    for (long band = row * down; band < (row + 1) * down && band < p.bands; band++)
        rest_gradient(p, clip, band, whole ? p.frames / 2 * 2 : 0);
}

void norm_pool_gradient(const MapsPass *pass)
{
    long rows = (pass->bands + pass->down - 1) / pass->down;
    #pragma omp parallel for
    for (long i = 0; i < pass->clips * rows; i++)
        if (pass->down == 2) gradient_row(*pass, i / rows, i % rows, 2); else gradient_row(*pass, i / rows, i % rows, 1);
}


// ---- Steps of a GRU ----

typedef struct {             // GRU layers that run side by side, usually the two directions; all steps
    const float *gates;      // [steps][layers][clips][3][hidden], the inputs' contribution: reset, update, new
    const value *product;    // [layers][clips][3][hidden], the recurrent weights times the previous state
    const value *bias;       // [layers][3][hidden]
    float *states;           // [steps][layers][clips][hidden]
    float *opened;           // [steps][layers][clips][2][hidden], reset and update gate
    float *new;              // [steps][layers][clips][hidden], new content
    float *recurrent;        // [steps][layers][clips][hidden], recurrent part of the new content
    value *rough;            // [layers][clips][hidden], the state, rounded for the next product
    long layers, clips, hidden;
} GruForward;

typedef struct {             // the same, backwards
    const float *grad;       // [steps][layers][clips][hidden], gradient of the states
    const value *product;    // [layers][clips][hidden], the later step's by_product times the recurrent weights
    const float *before;     // [steps][layers][clips][hidden], the previous states
    const float *opened, *new, *recurrent;  // as in GruForward
    float *carried;          // [layers][clips][hidden], the gradient that the later step's update gate passes on
    float *by_gates;         // [steps][layers][clips][3][hidden], the gradient of `gates`
    value *by_product;       // [steps][layers][clips][3][hidden], the gradient of `product`
    long layers, clips, hidden;
} GruBackward;

// A Taylor series around the nearest power of two; relative error at most 3e-7. Unlike expf, it takes vectors.
INLINE floats exponential(floats x)
{
    x = where(~(x > 88), x) + where(x > 88, (floats){0} + 88);
    x = where(~(x < -87), x) + where(x < -87, (floats){0} - 87);  // both keep a NaN
    floats whole = x * 1.44269504f + 12582912.0f - 12582912.0f;   // rounds: floats beyond 1.5 * 2^23 have no fraction
    floats r = x - whole * 0.693359375f + whole * 2.12194440e-4f; // log(2) in two parts, for precision
    floats sum = {0};
    for (int term = 7; term; term--) sum = 1 + sum * r * (1.0f / term);
    return sum * (floats)((bits)(__builtin_convertvector(whole, flags) + 127) << 23);
}

INLINE floats sigmoid(floats x) { return 1 / (1 + exponential(-x)); }
INLINE floats hyperbolic_tangent(floats x) { return 2 * sigmoid(2 * x) - 1; }

// One clip of gru_step; `row` counts the clips of all layers, `at` those of all steps too.
INLINE void step_row(const GruForward g, long step, long row)
{
    long rows = g.layers * g.clips, at = step * rows + row, hidden = g.hidden;
    const float *gates = g.gates + 3 * at * hidden, *before = step ? g.states + (at - rows) * hidden : 0;
    const value *product = g.product + 3 * row * hidden, *bias = g.bias + 3 * (row / g.clips) * hidden;
    float *opened = g.opened + 2 * at * hidden;
    FOR_EACH(c, hidden) {
        floats to_reset = load(product + c) + load(bias + c);
        floats to_update = load(product + hidden + c) + load(bias + hidden + c);
        floats recurrent = load(product + 2 * hidden + c) + load(bias + 2 * hidden + c);
        floats reset = sigmoid(load_floats(gates + c) + to_reset);
        floats update = sigmoid(load_floats(gates + hidden + c) + to_update);
        floats new = hyperbolic_tangent(load_floats(gates + 2 * hidden + c) + reset * recurrent);
        floats previous = before ? load_floats(before + c) : (floats){0};
        floats state = new + update * (previous - new);
        store_floats(opened + c, reset);
        store_floats(opened + hidden + c, update);
        store_floats(g.new + at * hidden + c, new);
        store_floats(g.recurrent + at * hidden + c, recurrent);
        store_floats(g.states + at * hidden + c, state);
        store(g.rough + row * hidden + c, state);
    }
}

void gru_step(const GruForward *gru, long step)
{
    long rows = gru->layers * gru->clips;
    #pragma omp parallel for
    for (long row = 0; row < rows; row++) step_row(*gru, step, row);
}

// One clip of gru_step_back.
INLINE void step_back_row(const GruBackward g, long step, long row)
{
    long at = step * g.layers * g.clips + row, hidden = g.hidden;
    const float *opened = g.opened + 2 * at * hidden;
    float *carried = g.carried + row * hidden, *by_gates = g.by_gates + 3 * at * hidden;
    value *by_product = g.by_product + 3 * at * hidden;
    FOR_EACH(c, hidden) {
        floats arriving = load_floats(g.grad + at * hidden + c) + load_floats(carried + c) + load(g.product + row * hidden + c);
        floats reset = load_floats(opened + c), update = load_floats(opened + hidden + c);
        floats new = load_floats(g.new + at * hidden + c), before = load_floats(g.before + at * hidden + c);
        floats to_new = arriving * (1 - update) * (1 - new * new);
        floats to_reset = to_new * load_floats(g.recurrent + at * hidden + c) * reset * (1 - reset);
        floats to_update = arriving * (before - new) * update * (1 - update);
        store_floats(by_gates + c, to_reset);
        store_floats(by_gates + hidden + c, to_update);
        store_floats(by_gates + 2 * hidden + c, to_new);
        store(by_product + c, to_reset);
        store(by_product + hidden + c, to_update);
        store(by_product + 2 * hidden + c, to_new * reset);
        store_floats(carried + c, arriving * update);
    }
}

void gru_step_back(const GruBackward *gru, long step)
{
    long rows = gru->layers * gru->clips;
    #pragma omp parallel for
    for (long row = 0; row < rows; row++) step_back_row(*gru, step, row);
}
