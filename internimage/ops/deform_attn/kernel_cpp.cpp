// Multi-scale deformable attention on a CPU.
//
// Forward: a unit is a run of queries; the points of all heads of a few queries are located at once, then each head
// gathers its channels over all levels.  Backward: a unit is one (image, head) slice of grad_value, or a band of its
// pixels when there are few slices: no races, and the same bits for every number of threads.
#include "../runtime/cpp/abi.h"
#include "../runtime/cpp/gather.h"
#include "../runtime/cpp/scatter.h"
#include "../runtime/cpp/softmax.h"

namespace {

constexpr int64_t kTilePoints = 128;

int64_t points_per_head(const AttentionArgs& a) { return a.levels * a.points; }

// `queries` and `heads` handled per tile, `run` queries per forward unit, `bands` of pixels per backward slice.
struct Plan {
    int64_t queries, heads, run, runs, bands;
};
Plan forward_plan(const AttentionArgs& a) {
    Plan plan{};
    const int64_t per_head = points_per_head(a), per_query = per_head * a.heads;
    plan.queries = max_of(1, min_of(a.queries, kTilePoints / per_query));
    plan.heads = plan.queries > 1 ? a.heads : min_of(a.heads, max_of(1, 2 * kTilePoints / per_head));
    plan.run = divide_up(16, plan.queries) * plan.queries;
    plan.runs = divide_up(a.queries, plan.run);
    return plan;
}
Plan backward_plan(const AttentionArgs& a) {
    Plan plan{};
    plan.queries = max_of(1, min_of(a.queries, 2 * kTilePoints / points_per_head(a)));
    plan.heads = 1;
    plan.bands = bands_of(a.batch * a.heads, a.pixels, a.threads);
    return plan;
}

// What one unit works with; the slice is for the backward pass.
template <class Acc>
struct Workspace {
    Points<Acc> points;
    LevelPlace<Acc> place;
    Slice<Acc> slice;

    Workspace(Arena& arena, const AttentionArgs& a, const Plan& plan, bool backward)
        : points(arena, plan.queries * plan.heads * points_per_head(a), backward),
          place(arena, plan.queries * plan.heads * points_per_head(a)),
          slice(arena, backward ? a.pixels : 0, backward ? divide_up(a.pixels, plan.bands) : 0, plan.queries, a.channels) {
    }
};

template <class Acc>
void fill_place(const AttentionArgs& a, const Plan& plan, LevelPlace<Acc>& place) {
    int64_t p = 0;
    for (int64_t run = 0; run < plan.queries * plan.heads; ++run) {
        int64_t first = 0;
        for (int64_t level = 0; level < a.levels; ++level) {
            const int64_t height = a.shapes[2 * level], width = a.shapes[2 * level + 1];
            for (int64_t k = 0; k < a.points; ++k, ++p) {
                place.size_x[p] = a.normalized ? Acc(width) : Acc(1), place.size_y[p] = a.normalized ? Acc(height) : Acc(1);
                place.final_x[p] = Acc(width - 1), place.final_y[p] = Acc(height - 1);
                place.width[p] = IndexOf<Acc>(width), place.first[p] = IndexOf<Acc>(first);
            }
            first += height * width;
        }
    }
}

// Read locations and weights of heads [head, head + heads) of `queries` queries and locate their points.
template <class Type, bool kBackward>
ALWAYS_INLINE void prepare_tile(const AttentionArgs& a, Workspace<typename Type::Acc>& work, int64_t query,
                                int64_t queries, int64_t head, int64_t heads, int64_t stride) {
    using Acc = typename Type::Acc;
    using Store = typename Type::Store;
    const int64_t length = points_per_head(a), per_query = a.heads * length;
    const Store* location = static_cast<const Store*>(a.location) + 2 * (query * per_query + head * length);
    const Store* weight = static_cast<const Store*>(a.weight) + query * per_query + head * length;
    const int64_t runs = heads == a.heads ? 1 : queries, run = queries * heads * length / runs;
    for (int64_t i = 0; i < runs; ++i) decode_run<Type>(weight + i * per_query, work.points.weight + i * run, run);
    if (a.softmax) exp_runs(work.points.weight, queries * heads, length);
    for (int64_t i = 0; i < runs; ++i)
        decode_run<Type>(location + 2 * i * per_query, work.points.offset + 2 * i * run, 2 * run);
    if (a.softmax) divide_runs(work.points.weight, queries * heads, length);
    locate<Acc, kBackward>(work.points, queries * heads * length, work.place, stride);
    if constexpr (!kBackward) prepare_gather<Type>(work.points, queries * heads * length);
}

// The next tile of a backward pass, which begins at query `row` of all images: what it reads and writes for one head
// lies in short runs far apart, and is fetched while this tile is worked off.
template <class Type>
struct NextTile {
    using Store = typename Type::Store;
    const AttentionArgs& a;
    int64_t row, head;
    bool writes;  // gradients of its points

    ALWAYS_INLINE void operator()(int64_t i) const {
        if (row + i >= a.batch * a.queries) return;
        const int64_t at = (row + i) * a.heads + head, length = points_per_head(a);
        fetch<false>(static_cast<const Store*>(a.location) + 2 * at * length, 2 * length);
        fetch<false>(static_cast<const Store*>(a.weight) + at * length, length);
        fetch<false>(static_cast<const Store*>(a.grad_out) + at * a.channels, a.channels);
        if (!writes) return;
        fetch<true>(static_cast<const Store*>(a.grad_location) + 2 * at * length, 2 * length);
        fetch<true>(static_cast<const Store*>(a.grad_weight) + at * length, length);
    }
};

template <class Type>
void forward_unit(const AttentionArgs& a, int64_t unit, void* scratch) {
    using Acc = typename Type::Acc;
    using Store = typename Type::Store;
    const Plan plan = forward_plan(a);
    const int64_t length = points_per_head(a), d = a.channels;
    Arena arena{static_cast<char*>(scratch)};
    Workspace<Acc> work(arena, a, plan, false);
    fill_place(a, plan, work.place);
    const int64_t image = unit / plan.runs, begin = unit % plan.runs * plan.run, end = min_of(a.queries, begin + plan.run);
    const Store* value = static_cast<const Store*>(a.value) + image * a.pixels * a.value_stride;
    Store* out = static_cast<Store*>(a.out) + image * a.queries * a.heads * d;
    for (int64_t query = begin; query < end; query += plan.queries) {
        const int64_t queries = min_of(plan.queries, end - query);
        for (int64_t head = 0; head < a.heads; head += plan.heads) {
            const int64_t heads = min_of(plan.heads, a.heads - head);
            prepare_tile<Type, false>(a, work, image * a.queries + query, queries, head, heads, a.value_stride);
            for (int64_t i = 0; i < queries; ++i)
                for (int64_t h = 0; h < heads; ++h)
                    gather<Type, kLanes<Acc>>(work.points, (i * heads + h) * length, length, value + (head + h) * d,
                                              a.value_stride, out + ((query + i) * a.heads + head + h) * d, d);
        }
    }
}

// Gradients of locations and weights of `queries` queries, from the dots that `scatter_tile` left.
template <class Type>
ALWAYS_INLINE void write_point_gradients(const AttentionArgs& a, Workspace<typename Type::Acc>& work, int64_t query,
                                         int64_t queries, int64_t head) {
    using Store = typename Type::Store;
    const int64_t length = points_per_head(a);
    point_gradients(work.points, queries * length, work.place);
    if (a.softmax) softmax_gradients(work.points.weight, work.points.grad_weight, queries, length);
    for (int64_t i = 0; i < queries; ++i) {
        const int64_t at = ((query + i) * a.heads + head) * length;
        encode_run<Type>(work.points.grad_offset + 2 * i * length, static_cast<Store*>(a.grad_location) + 2 * at,
                         2 * length);
        encode_run<Type>(work.points.grad_weight + i * length, static_cast<Store*>(a.grad_weight) + at, length);
    }
}

template <class Type>
void backward_unit(const AttentionArgs& a, int64_t unit, void* scratch) {
    using Acc = typename Type::Acc;
    using Store = typename Type::Store;
    const Plan plan = backward_plan(a);
    const int64_t length = points_per_head(a), d = a.channels, all_channels = a.heads * d;
    Arena arena{static_cast<char*>(scratch)};
    Workspace<Acc> work(arena, a, plan, true);
    fill_place(a, plan, work.place);

    const int64_t band = unit % plan.bands, image = unit / plan.bands / a.heads, head = unit / plan.bands % a.heads;
    const int64_t first_query = a.queries * band / plan.bands, end_query = a.queries * (band + 1) / plan.bands;
    const Target<Acc> target = work.slice.target(a.pixels * band / plan.bands, a.pixels * (band + 1) / plan.bands,
                                                 plan.bands == 1);
    const bool wants_points = a.grad_location != nullptr;
    if (wants_points)
        work.slice.template read<Type>(static_cast<const Store*>(a.value) + image * a.pixels * a.value_stride + head * d,
                                       a.value_stride, a.pixels);
    // Each query's points belong to the band that owns the query; its corners go to whichever band holds them.
    for (int64_t query = 0; query < a.queries;) {
        const bool owns = query >= first_query && query < end_query;
        const int64_t stop = owns ? end_query : query < first_query ? first_query : a.queries;
        const int64_t queries = min_of(plan.queries, stop - query), row = image * a.queries + query;
        prepare_tile<Type, true>(a, work, row, queries, head, 1, d);
        work.slice.template read_grad<Type>(static_cast<const Store*>(a.grad_out) + row * all_channels + head * d,
                                            all_channels, queries);
        scatter_tile(work.points, work.place, work.slice, target, queries, length, owns && wants_points,
                     NextTile<Type>{a, row + queries, head, owns && wants_points});
        if (owns && wants_points) write_point_gradients<Type>(a, work, row, queries, head);
        query += queries;
    }
    work.slice.template write<Type>(static_cast<Store*>(a.grad_value) + image * a.pixels * all_channels + head * d,
                                    all_channels, target);
}

int64_t forward_units(const AttentionArgs& a) { return a.batch * forward_plan(a).runs; }
int64_t backward_units(const AttentionArgs& a) { return a.batch * a.heads * backward_plan(a).bands; }

}  // namespace

DEFINE_KERNELS(AttentionArgs, attention_kernel_)
