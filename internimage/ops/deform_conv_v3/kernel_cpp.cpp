// The window operators on a CPU: dcnv3, and dcnv4, which differs only in the strides of its offsets and weights.
//
// Forward: a unit is a block of output pixels, worked off row by row so that the pixels of x around it stay in the
// first cache; a tile of points (pixels x groups x K) is located at once and then each group gathers its channels.
// Backward: a unit is one (image, group) slice of grad_x, or a band of its rows when there are few slices, so each
// accumulator has one owner and receives its terms in output order: no races, and the same bits for every number of
// threads.
#include "../runtime/cpp/abi.h"
#include "../runtime/cpp/gather.h"
#include "../runtime/cpp/scatter.h"
#include "../runtime/cpp/softmax.h"

namespace {

constexpr int64_t kTilePoints = 160;

// `pixels` and `groups` handled per tile; blocks of `columns` x `rows` pixels per forward unit, `strips` of them side
// by side and `blocks` one below the other; `bands` of rows per backward slice.
struct Plan {
    int64_t pixels, groups, columns, rows, strips, blocks, bands;
};
Plan forward_plan(const WindowArgs& a) {
    Plan plan{};
    const int64_t points_per_pixel = max_of(1, a.groups * a.points);
    plan.pixels = points_per_pixel > kTilePoints ? 1 : min_of(a.out_width, kTilePoints / points_per_pixel);
    const int64_t most = plan.pixels > 1 ? a.groups : min_of(a.groups, max_of(1, kTilePoints / max_of(1, a.points)));
    plan.groups = divide_up(a.groups, max_of(1, divide_up(a.groups, max_of(1, most))));  // nearly equal shares
    plan.columns = divide_up(min_of(a.out_width, 64), plan.pixels) * plan.pixels;
    plan.strips = divide_up(a.out_width, plan.columns);
    plan.rows = max_of(1, min_of(16, a.batch * plan.strips * a.out_height / (8 * a.threads)));
    plan.blocks = divide_up(a.out_height, plan.rows);
    return plan;
}
Plan backward_plan(const WindowArgs& a) {
    Plan plan{};
    plan.pixels = max_of(1, min_of(a.out_width, 256 / max_of(1, a.points)));
    plan.groups = 1;
    plan.bands = bands_of(a.batch * a.groups, a.height, a.threads);
    return plan;
}

// What one unit works with; the slice is for the backward pass.
template <class Acc>
struct Workspace {
    Points<Acc> points;
    WindowPlace<Acc> place;
    Acc *offset, *weight;  // room for those of a tile
    Slice<Acc> slice;

    Workspace(Arena& arena, const WindowArgs& a, const Plan& plan, bool backward)
        : points(arena, plan.pixels * plan.groups * a.points, backward),
          place(arena, plan.pixels * plan.groups * a.points),
          offset(points.offset),
          weight(points.weight),
          slice(arena, backward ? a.height * a.width : 0, backward ? divide_up(a.height, plan.bands) * a.width : 0,
                plan.pixels, a.channels) {}
};

// The part of every position that does not change from tile to tile.
template <class Acc>
void fill_place(const WindowArgs& a, const Plan& plan, WindowPlace<Acc>& place) {
    const int64_t half_h = (a.dilation_h * (a.kernel_h - 1)) >> 1, half_w = (a.dilation_w * (a.kernel_w - 1)) >> 1;
    place.scale = Acc(a.offset_scale);
    place.final_x = Acc(a.width - 1), place.final_y = Acc(a.height - 1);
    place.width = IndexOf<Acc>(a.width);
    int64_t p = 0;
    for (int64_t pixel = 0; pixel < plan.pixels; ++pixel)
        for (int64_t group = 0; group < plan.groups; ++group)
            for (int64_t i = 0; i < a.kernel_w; ++i)  // width outer, height inner
                for (int64_t j = 0; j < a.kernel_h; ++j) {
                    if (a.remove_center && i == a.kernel_w / 2 && j == a.kernel_h / 2) continue;
                    place.grid_x[p] = Acc(double(half_w - a.pad_w + pixel * a.stride_w) +
                                          a.offset_scale * double(i * a.dilation_w - half_w));
                    place.grid_y[p] = Acc(double(half_h - a.pad_h) + a.offset_scale * double(j * a.dilation_h - half_h));
                    ++p;
                }
}

// The numbers of `groups` groups of some pixels, `length` each, in a row: copied to `room`, or where they lie if they
// already are in a row, of the right kind, and `readable` of them may be read, which locate() does in whole vectors.
template <class Type>
ALWAYS_INLINE typename Type::Acc* read_numbers(const typename Type::Store* from, int64_t pixel_stride, int64_t pixels,
                                               int64_t group_stride, int64_t groups, int64_t length, int64_t readable,
                                               typename Type::Acc* room) {
    using Acc = typename Type::Acc;
    using Store = typename Type::Store;
    constexpr int64_t kPairs = 2 * kPointLanes<Acc>;
    const int64_t runs = group_stride == length ? 1 : groups, run = groups / runs * length, count = pixels * groups * length;
    if (runs == 1 && pixel_stride == run) {
        if (sizeof(Store) == sizeof(Acc) && readable >= divide_up(count, kPairs) * kPairs)
            return reinterpret_cast<Acc*>(const_cast<Store*>(from));
        decode_run<Type>(from, room, count);
        return room;
    }
    for (int64_t i = 0; i < pixels; ++i)
        for (int64_t r = 0; r < runs; ++r) {
            const Store* at = from + i * pixel_stride + r * group_stride;
            Acc* to = room + (i * runs + r) * run;
            if (run == 9) decode_run<Type>(at, to, 9);  // 3x3: copies of known length
            else if (run == 18) decode_run<Type>(at, to, 18);
            else decode_run<Type>(at, to, run);
        }
    return room;
}

// Read offsets and weights of a tile and locate its points.
template <class Type, bool kBackward>
ALWAYS_INLINE void prepare_tile(const WindowArgs& a, Workspace<typename Type::Acc>& work, int64_t image, int64_t row,
                                int64_t column, int64_t pixels, int64_t group, int64_t groups, int64_t x_stride) {
    using Acc = typename Type::Acc;
    using Store = typename Type::Store;
    Points<Acc>& points = work.points;
    const int64_t pixel = (image * a.out_height + row) * a.out_width + column, k = a.points;
    const int64_t left = (a.batch * a.out_height * a.out_width - pixel) * groups * k;  // points, where groups == a.groups
    points.weight = read_numbers<Type>(
        static_cast<const Store*>(a.weight) + pixel * a.weight_stride + group * a.weight_group, a.weight_stride, pixels,
        a.weight_group, groups, k, a.softmax ? 0 : left, work.weight);
    if (a.softmax) exp_runs(points.weight, pixels * groups, k);
    points.offset = read_numbers<Type>(
        static_cast<const Store*>(a.offset) + pixel * a.offset_stride + group * a.offset_group, a.offset_stride, pixels,
        a.offset_group, groups, 2 * k, 2 * left, work.offset);
    if (a.softmax) divide_runs(points.weight, pixels * groups, k);
    work.place.base_x = Acc(column * a.stride_w), work.place.base_y = Acc(row * a.stride_h);
    locate<Acc, kBackward>(points, pixels * groups * k, work.place, x_stride);
    if constexpr (!kBackward) prepare_gather<Type>(points, pixels * groups * k);
}

// The next tile, which begins at output pixel `pixel` of all images and at `group`. What it reads and writes lies in
// many short runs, which no prefetcher of a CPU foresees: it is fetched run by run while this tile is worked off.
template <class Type>
struct NextTile {
    using Store = typename Type::Store;
    const WindowArgs& a;
    int64_t pixel, group;
    bool writes;  // gradients of its points

    ALWAYS_INLINE bool exists(int64_t i) const { return pixel + i < a.batch * a.out_height * a.out_width; }
    template <bool kWrite>
    ALWAYS_INLINE void fetch_points(const void* offset, int64_t offset_at, const void* weight, int64_t weight_at,
                                    int64_t points) const {
        fetch<kWrite>(static_cast<const Store*>(offset) + offset_at, 2 * points);
        fetch<kWrite>(static_cast<const Store*>(weight) + weight_at, points);
    }
    // Offsets and weights of `groups` groups of pixel i.
    ALWAYS_INLINE void inputs(int64_t i, int64_t groups) const {
        if (!exists(i)) return;
        const bool in_a_row = a.offset_group == 2 * a.points && a.weight_group == a.points;
        const int64_t step = in_a_row ? groups : 1;
        for (int64_t g = group; g < group + groups; g += step)
            fetch_points<false>(a.offset, (pixel + i) * a.offset_stride + g * a.offset_group,  //
                                a.weight, (pixel + i) * a.weight_stride + g * a.weight_group, step * a.points);
    }
    // Everything for pixel i of a backward tile, which has one group.
    ALWAYS_INLINE void operator()(int64_t i) const {
        inputs(i, 1);
        if (!exists(i)) return;
        const Store* grad_out = static_cast<const Store*>(a.grad_out);
        fetch<false>(grad_out + ((pixel + i) * a.groups + group) * a.channels, a.channels);
        if (writes)
            fetch_points<true>(a.grad_offset, (pixel + i) * a.grad_offset_stride + group * a.grad_offset_group,  //
                               a.grad_weight, (pixel + i) * a.grad_weight_stride + group * a.grad_weight_group,
                               a.points);
    }
};

// Ask for the pixels of x that come into reach some output rows below this tile: rows of x are needed in order, but
// their pixels in none, so that the hardware does not fetch them ahead.
constexpr int64_t kRowsAhead = 4;  // below the last row of the undisplaced window
template <class Store>
ALWAYS_INLINE void fetch_rows_ahead(const WindowArgs& a, const Store* x, int64_t row, int64_t column, int64_t pixels) {
    const int64_t first = row * a.stride_h - a.pad_h + (a.kernel_h - 1) * a.dilation_h + kRowsAhead;
    const int64_t end_column = min_of(a.width, (column + pixels) * a.stride_w);
    for (int64_t y = max_of(0, first); y < min_of(a.height, first + a.stride_h); ++y)
        for (int64_t at = column * a.stride_w; at < end_column; ++at)
            fetch<false>(x + (y * a.width + at) * a.x_stride, a.groups * a.channels);
}

template <class Type>
void forward_unit(const WindowArgs& a, int64_t unit, void* scratch) {
    using Acc = typename Type::Acc;
    using Store = typename Type::Store;
    const Plan plan = forward_plan(a);
    Arena arena{static_cast<char*>(scratch)};
    Workspace<Acc> work(arena, a, plan, false);
    fill_place(a, plan, work.place);
    const int64_t block = unit % plan.blocks, strip = unit / plan.blocks % plan.strips;
    const int64_t image = unit / (plan.blocks * plan.strips);
    const int64_t first_row = block * plan.rows, end_row = min_of(a.out_height, first_row + plan.rows);
    const int64_t begin = strip * plan.columns, end = min_of(a.out_width, begin + plan.columns);
    const Store* x = static_cast<const Store*>(a.x) + image * a.height * a.width * a.x_stride;
    for (int64_t row = first_row; row < end_row; ++row) {
        Store* out = static_cast<Store*>(a.out) + (image * a.out_height + row) * a.out_width * a.groups * a.channels;
        for (int64_t column = begin; column < end; column += plan.pixels) {
            const int64_t pixels = min_of(plan.pixels, end - column);
            fetch_rows_ahead(a, x, row, column, pixels);
            for (int64_t group = 0; group < a.groups; group += plan.groups) {
                const int64_t groups = min_of(plan.groups, a.groups - group);
                prepare_tile<Type, false>(a, work, image, row, column, pixels, group, groups, a.x_stride);
                const int64_t pixel = (image * a.out_height + row) * a.out_width + column;
                const bool goes_on = group + groups < a.groups;
                const NextTile<Type> next{a, goes_on ? pixel : pixel + pixels, goes_on ? group + groups : 0, false};
                const int64_t next_groups = min_of(plan.groups, a.groups - next.group);
                for (int64_t i = 0; i < pixels; ++i) {
                    next.inputs(i, next_groups);
                    for (int64_t g = 0; g < groups; ++g)
                        gather<Type, kLanes<Acc>>(work.points, (i * groups + g) * a.points, a.points,
                                                  x + (group + g) * a.channels, a.x_stride,
                                                  out + ((column + i) * a.groups + group + g) * a.channels, a.channels);
                }
            }
        }
    }
}

// The rows of grad_x and the rows of output that one backward unit owns.
struct Band {
    int64_t image, group, first_row, end_row, first_out_row, end_out_row;
};
Band band_of(const WindowArgs& a, const Plan& plan, int64_t unit) {
    const int64_t band = unit % plan.bands, slice = unit / plan.bands;
    return {slice / a.groups, slice % a.groups, a.height * band / plan.bands, a.height * (band + 1) / plan.bands,
            a.out_height * band / plan.bands, a.out_height * (band + 1) / plan.bands};
}

// Gradients of offsets and weights of one tile, from the dots that `scatter` left.
template <class Type>
ALWAYS_INLINE void write_point_gradients(const WindowArgs& a, Workspace<typename Type::Acc>& work, int64_t pixel,
                                         int64_t pixels, int64_t group) {
    using Store = typename Type::Store;
    const int64_t k = a.points;
    point_gradients(work.points, pixels * k, work.place);
    if (a.softmax) softmax_gradients(work.points.weight, work.points.grad_weight, pixels, k);
    Store* offset = static_cast<Store*>(a.grad_offset) + pixel * a.grad_offset_stride + group * a.grad_offset_group;
    Store* weight = static_cast<Store*>(a.grad_weight) + pixel * a.grad_weight_stride + group * a.grad_weight_group;
    for (int64_t i = 0; i < pixels; ++i) {
        encode_run<Type>(work.points.grad_offset + 2 * i * k, offset + i * a.grad_offset_stride, 2 * k);
        encode_run<Type>(work.points.grad_weight + i * k, weight + i * a.grad_weight_stride, k);
    }
}

template <class Type>
void backward_unit(const WindowArgs& a, int64_t unit, void* scratch) {
    using Acc = typename Type::Acc;
    using Store = typename Type::Store;
    const Plan plan = backward_plan(a);
    Arena arena{static_cast<char*>(scratch)};
    Workspace<Acc> work(arena, a, plan, true);
    fill_place(a, plan, work.place);

    const Band band = band_of(a, plan, unit);
    const int64_t all_channels = a.groups * a.channels, d = a.channels, pixels_of_x = a.height * a.width;
    const int64_t first_pixel = band.first_row * a.width, end_pixel = band.end_row * a.width;
    work.slice.template read<Type>(static_cast<const Store*>(a.x) + band.image * pixels_of_x * a.x_stride + band.group * d,
                                   a.x_stride, pixels_of_x);
    const Target<Acc> target = work.slice.target(first_pixel, end_pixel, plan.bands == 1);
    for (int64_t row = 0; row < a.out_height; ++row) {
        const bool owns_points = row >= band.first_out_row && row < band.end_out_row;
        for (int64_t column = 0; column < a.out_width; column += plan.pixels) {
            const int64_t pixels = min_of(plan.pixels, a.out_width - column);
            const int64_t pixel = (band.image * a.out_height + row) * a.out_width + column;
            prepare_tile<Type, true>(a, work, band.image, row, column, pixels, band.group, 1, d);
            work.slice.template read_grad<Type>(
                static_cast<const Store*>(a.grad_out) + pixel * all_channels + band.group * d, all_channels, pixels);
            scatter_tile(work.points, work.place, work.slice, target, pixels, a.points, owns_points,
                         NextTile<Type>{a, pixel + pixels, band.group, owns_points});
            if (owns_points) write_point_gradients<Type>(a, work, pixel, pixels, band.group);
        }
    }
    work.slice.template write<Type>(static_cast<Store*>(a.grad_x) + band.image * pixels_of_x * all_channels + band.group * d,
                                    all_channels, target);
}

int64_t forward_units(const WindowArgs& a) {
    const Plan plan = forward_plan(a);
    return a.batch * plan.strips * plan.blocks;
}
int64_t backward_units(const WindowArgs& a) { return a.batch * a.groups * backward_plan(a).bands; }

}  // namespace

DEFINE_KERNELS(WindowArgs, window_kernel_)
