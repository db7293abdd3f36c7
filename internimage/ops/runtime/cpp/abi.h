// The C interface between Python (ctypes) and the compiled kernels: raw pointers and 64-bit integers, nothing else.
// Strides count elements.  The same fields, in the same order, stand in ../abi.py.
#pragma once
#include <cstdint>

enum DataType : int64_t { kFloat32 = 0, kFloat64 = 1, kFloat16 = 2, kBFloat16 = 3 };

// How the scheduler starts a team: the signature of libgomp's GOMP_parallel, or null for plain threads.
using StartTeam = void (*)(void (*body)(void*), void* data, unsigned threads, unsigned flags);

// One window operator call (dcnv3, dcnv4): N images, G groups of D channels, K points per output pixel.
struct WindowArgs {
    const void* x;            // (N, H, W, >= G*D), pixel stride x_stride
    const void* offset;       // first offset of pixel 0, group 0
    const void* weight;       // first weight of pixel 0, group 0
    const void* grad_out;     // (N, Ho, Wo, G*D) contiguous; backward only
    void* out;                // (N, Ho, Wo, G*D) contiguous; forward only
    void* grad_x;             // (N, H, W, G*D) contiguous
    void* grad_offset;        // as offset, with its own strides
    void* grad_weight;
    int64_t batch, height, width, out_height, out_width, groups, channels, points;
    int64_t x_stride;
    int64_t offset_stride, offset_group, weight_stride, weight_group;
    int64_t grad_offset_stride, grad_offset_group, grad_weight_stride, grad_weight_group;
    int64_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
    int64_t remove_center, softmax, data_type, threads;
    double offset_scale;
    StartTeam start_team;
};

// How a branch y joins the sum, row by row: sum = shortcut + gamma * norm_a(y), then normed = norm_b(sum).
// Null pointers leave out shortcut, gamma and the norms.
struct ResidualArgs {
    const void* shortcut;  // (rows, channels)
    void* sum;             // (rows, channels); may be y or shortcut
    const void* gamma;     // (channels)
    const void *weight_a, *bias_a, *weight_b, *bias_b;  // (channels)
    void* normed;          // (rows, channels)
    double eps;
};

// What the steps between matrix products do with `rows` channel rows.
enum RowOperation : int64_t {
    kGelu = 0,      // y = gelu(y)
    kResidual = 1,  // y joins the sum
};
struct RowArgs {
    void* y;  // (rows, channels); kGelu writes it, too
    ResidualArgs residual;
    int64_t rows, channels, operation, data_type, threads;
    StartTeam start_team;
};

// Weights of linear layers come in blocks of 16 outputs, [outputs / 16][inputs / s][16][s], s = 2 for bfloat16 and else
// 1, zeros where there are no outputs; biases in float32, padded likewise.
enum Activation : int64_t { kIdentity = 0, kRelu = 1, kGeluOf = 2 };

// out = activation(x W + b)
struct LinearArgs {
    const void* x;  // (rows, inputs) contiguous
    const void* weight;
    const float* bias;
    void* out;  // (rows, outputs) contiguous
    int64_t rows, inputs, outputs, activation, data_type, threads;
    StartTeam start_team;
};

// y = activation(x W_1 + b_1) W_2 + b_2, or x W_1 + b_1 where `hidden` is 0; y joins the sum.
struct PerceptronArgs {
    const void* x;  // (rows, inputs) contiguous
    const void* weight_1;
    const float* bias_1;
    const void* weight_2;
    const float* bias_2;
    ResidualArgs residual;
    int64_t rows, inputs, hidden, outputs, activation, data_type, threads;
    StartTeam start_team;
};

// A convolution of a contiguous (batch, height, width, channels) map as a product of patches, its inputs in the order
// (row, column, channel) and padded to `inputs`: y = activation(norm_a(conv(x))), only kIdentity and kGeluOf, joins the sum.
struct ConvArgs {
    const void* x;
    const void* weight;
    const float* bias;
    ResidualArgs residual;
    int64_t batch, height, width, channels, out_height, out_width, kernel, stride, padding;
    int64_t rows, inputs, outputs, activation, data_type, threads;  // rows = batch * out_height * out_width
    StartTeam start_team;
};

// Depth-wise convolution (stride 1, same size, odd kernel), layer norm and GELU of a contiguous (N, H, W, C) map.
struct DepthwiseArgs {
    const void* x;
    const void* weight;  // (kernel * kernel, channels)
    const void *bias, *norm_weight, *norm_bias;  // (channels)
    void* out;
    int64_t batch, height, width, channels, kernel, data_type, threads;
    double eps;
    StartTeam start_team;
};

// One multi-scale deformable attention call: N images of S pixels over all levels, Q queries, M heads of D channels.
struct AttentionArgs {
    const void* value;     // (N, S, M*D), pixel stride value_stride
    const void* location;  // (N, Q, M, L, P, 2) contiguous
    const void* weight;    // (N, Q, M, L, P) contiguous
    const void* grad_out;  // (N, Q, M*D) contiguous; backward only
    void* out;             // (N, Q, M*D) contiguous; forward only
    void *grad_value, *grad_location, *grad_weight;  // contiguous; without the last two, value is not read
    const int64_t* shapes; // (height, width) of every level
    int64_t batch, pixels, queries, heads, channels, levels, points, value_stride;
    int64_t normalized, softmax, data_type, threads;
    StartTeam start_team;
};

// What one instruction set offers for one operator direction: `units` independent pieces of work, in any order.
template <class Args>
struct Kernel {
    int64_t (*units)(const Args&);
    int64_t (*scratch_bytes)(const Args&);
    void (*run)(const Args&, int64_t unit, void* scratch);
};

// The name of a function that every instruction set has: `stem` and the instruction set that a file is compiled for.
#define CONCATENATE(a, b) a##b
#define NAME_FOR(stem, isa) CONCATENATE(stem, isa)
