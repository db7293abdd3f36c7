// Linear layers on contiguous rows: one product with an activation, a block's perceptron with its residual sum, and a
// strided convolution with norm and activation as a product of patches.
// Forward only, for AVX-512: elsewhere the library's products are faster (see packed.py).
#include "product.h"

namespace {

// Rows of a unit: equal shares for the threads, none above kUnitRows and none too small to use a tile.
template <class Args>
int64_t unit_rows(const Args& a) {
    const int64_t threads = max_of(1, a.threads);
    const int64_t units = threads * divide_up(a.rows, threads * kUnitRows);
    return max_of(divide_up(a.rows, max_of(1, units)), min_of(a.rows, kTileRows));
}

// --- one layer ------------------------------------------------------------------------------------------------------

int64_t row_parts(const LinearArgs& a) { return divide_up(a.rows, max_of(1, unit_rows(a))); }
// Few rows are shared out by their outputs.
int64_t output_parts(const LinearArgs& a) {
    const int64_t wanted = divide_up(max_of(1, a.threads), max_of(1, row_parts(a)));
    return min_of(wanted, divide_up(a.outputs, kBlock * kTileBlocks));
}
int64_t linear_units(const LinearArgs& a) { return row_parts(a) * output_parts(a); }
int64_t linear_scratch(const LinearArgs&) { return int64_t(sizeof(float)) * kTileSums; }

template <class Type>
void linear_unit(const LinearArgs& a, int64_t unit, void* memory) {
    using Store = typename Type::Store;
    const int64_t parts = output_parts(a), part = unit % parts, row = unit / parts * unit_rows(a);
    const int64_t blocks = divide_up(a.outputs, kBlock);
    Product<Type, Type>{
        static_cast<const Store*>(a.x) + row * a.inputs, min_of(unit_rows(a), a.rows - row), a.inputs,
        static_cast<const float*>(a.weight), a.bias,
        a.outputs, part * blocks / parts, (part + 1) * blocks / parts, a.activation,
        static_cast<Store*>(a.out) + row * a.outputs, a.outputs, static_cast<float*>(memory),
    }.run();
}

// --- units that end in a sum: whole rows, with their results in float32 ----------------------------------------------

template <class Args>
int64_t whole_row_units(const Args& a) { return divide_up(a.rows, max_of(1, unit_rows(a))); }

// Rows [first, first + rows) and the memory for them; in `rest`, `between` values a row.
template <class Type, class Args>
struct Rows {
    int64_t first, rows;
    float *aside, *y;
    Residual residual;
    typename Type::Store* rest;

    Rows(const Args& a, int64_t unit, void* memory)
        : first(unit * unit_rows(a)), rows(min_of(unit_rows(a), a.rows - first)), aside(static_cast<float*>(memory)),
          y(aside + kTileSums) {
        float* scratch = y + rows * padded(a.outputs);
        residual = decode_residual<Type>(a.residual, a.outputs, scratch);
        rest = reinterpret_cast<typename Type::Store*>(scratch);
    }
    static int64_t scratch_bytes(const Args& a, int64_t between) {
        const int64_t results = (unit_rows(a) + kResidualVectors) * padded(a.outputs);
        return int64_t(sizeof(float)) * (kTileSums + results + unit_rows(a) * padded(between));
    }
    // All outputs of a last product.
    Product<Type, Float32> product(const Args& a, const typename Type::Store* x, int64_t inputs, const void* weight,
                                   const float* bias) const {
        return {x, rows, inputs, static_cast<const float*>(weight), bias, a.outputs, 0, divide_up(a.outputs, kBlock),
                kIdentity, y, padded(a.outputs), aside};
    }
};

// --- perceptron and residual sum ------------------------------------------------------------------------------------

int64_t perceptron_scratch(const PerceptronArgs& a) {
    return Rows<Float32, PerceptronArgs>::scratch_bytes(a, a.hidden);
}

template <class Type>
void perceptron_unit(const PerceptronArgs& a, int64_t unit, void* memory) {
    const Rows<Type, PerceptronArgs> work(a, unit, memory);
    const auto* x = static_cast<const typename Type::Store*>(a.x) + work.first * a.inputs;
    if (a.hidden) {
        Product<Type, Type>{x, work.rows, a.inputs, static_cast<const float*>(a.weight_1), a.bias_1, a.hidden, 0,
                            divide_up(a.hidden, kBlock), a.activation, work.rest, a.hidden, work.aside}.run();
        work.product(a, work.rest, a.hidden, a.weight_2, a.bias_2).run();
    } else {
        work.product(a, x, a.inputs, a.weight_1, a.bias_1).run();
    }
    add_residual_rows<Type>(a.residual, work.residual, work.first, work.rows, a.outputs, work.y);
}

// --- convolution, norm, activation ----------------------------------------------------------------------------------

int64_t conv_scratch(const ConvArgs& a) { return Rows<Float32, ConvArgs>::scratch_bytes(a, a.inputs); }

// The inputs of one output pixel in the order (row, column, channel), zeros outside of the map and behind the last one.
template <class Store>
void copy_patch(const ConvArgs& a, int64_t pixel, Store* patch) {
    const int64_t n = pixel / (a.out_height * a.out_width), at = pixel % (a.out_height * a.out_width);
    const int64_t top = at / a.out_width * a.stride - a.padding, left = at % a.out_width * a.stride - a.padding;
    const int64_t first = max_of(0, -left), end = min_of(a.kernel, a.width - left);
    const Store* image = static_cast<const Store*>(a.x) + n * a.height * a.width * a.channels;
    const int64_t line = a.kernel * a.channels, begin = first * a.channels, count = max_of(0, end - first) * a.channels;
    for (int64_t k = 0; k < a.kernel; ++k, patch += line) {
        const int64_t y = top + k;
        if (y < 0 || y >= a.height || count < line) std::memset(patch, 0, size_t(line) * sizeof(Store));
        if (y < 0 || y >= a.height || count == 0) continue;
        const Store* from = image + (y * a.width + left + first) * a.channels;
        std::memcpy(patch + begin, from, size_t(count) * sizeof(Store));
    }
    for (int64_t i = a.kernel * line; i < a.inputs; ++i) *patch++ = Store(0);
}

template <class Type>
void conv_unit(const ConvArgs& a, int64_t unit, void* memory) {
    const Rows<Type, ConvArgs> work(a, unit, memory);
    for (int64_t r = 0; r < work.rows; ++r) copy_patch(a, work.first + r, work.rest + r * a.inputs);
    work.product(a, work.rest, a.inputs, a.weight, a.bias).run();
    Residual after = work.residual;
    after.weight_a = nullptr;  // the activation stands between this norm and the sum
    const bool gelu = a.activation == kGeluOf;
    for_row_groups(work.residual.weight_a ? work.rows : 0, [&](int64_t r, auto group) {
        float* row = work.y + r * padded(a.outputs);
        const auto normalize_to = gelu ? normalize<Float32, group(), true> : normalize<Float32, group(), false>;
        normalize_to(row, padded(a.outputs), row, padded(a.outputs), work.residual.weight_a, work.residual.bias_a,
                     a.outputs, float(a.residual.eps));
    });
    if (gelu && !work.residual.weight_a) gelu_run<Float32>(work.y, work.rows * padded(a.outputs));
    add_residual_rows<Type>(a.residual, after, work.first, work.rows, a.outputs, work.y);
}

template <class Type>
Kernel<LinearArgs> linear_kernel() {
    return {linear_units, linear_scratch, linear_unit<Type>};
}
template <class Type>
Kernel<PerceptronArgs> perceptron_kernel() {
    return {whole_row_units<PerceptronArgs>, perceptron_scratch, perceptron_unit<Type>};
}
template <class Type>
Kernel<ConvArgs> conv_kernel() {
    return {whole_row_units<ConvArgs>, conv_scratch, conv_unit<Type>};
}

}  // namespace

Kernel<LinearArgs> NAME_FOR(linear_kernel_, INTERNIMAGE_ISA)(int64_t data_type) {
    return data_type == kBFloat16 ? linear_kernel<BFloat16>() : linear_kernel<Float32>();
}

Kernel<PerceptronArgs> NAME_FOR(perceptron_kernel_, INTERNIMAGE_ISA)(int64_t data_type) {
    return data_type == kBFloat16 ? perceptron_kernel<BFloat16>() : perceptron_kernel<Float32>();
}

Kernel<ConvArgs> NAME_FOR(conv_kernel_, INTERNIMAGE_ISA)(int64_t data_type) {
    return data_type == kBFloat16 ? conv_kernel<BFloat16>() : conv_kernel<Float32>();
}
