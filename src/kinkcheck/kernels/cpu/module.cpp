// The Python module: it picks the instruction set, cuts problems into blocks and runs them on
// threads. Tensors come as addresses; __init__.py answers for their type, shape and layout.
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <nanobind/nanobind.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "counts.hpp"
#include "plan.hpp"
#include "problem.hpp"

namespace nb = nanobind;

namespace kinkcheck {

// See kernels.cpp.
#define DECLARE(set) extern const Kernels set##_float, set##_double, set##_Half, set##_Brain
DECLARE(baseline);
DECLARE(avx2);
DECLARE(avx512);

namespace {

enum Element { float32, float64, float16, bfloat16, elements };

struct InstructionSet {
  const char* name;
  const Kernels* kernels[elements];
};

#define INSTRUCTION_SET(set) \
  InstructionSet { #set, { &set##_float, &set##_double, &set##_Half, &set##_Brain } }

std::vector<InstructionSet> supported() {
  std::vector<InstructionSet> found{INSTRUCTION_SET(baseline)};
#if defined(KINKCHECK_X86_64)
  if (__builtin_cpu_supports("x86-64-v3")) found.push_back(INSTRUCTION_SET(avx2));
  if (__builtin_cpu_supports("x86-64-v4")) found.push_back(INSTRUCTION_SET(avx512));
#endif
  return found;
}

InstructionSet in_use = supported().back();

// Shares of the picked and of the other active entries, by their number, rounded once.
template <class S>
struct Shares {
  explicit Shares(const Choice& choice)
      : chosen(choice.picked.begin(), choice.picked.end()),
        other(choice.others.begin(), choice.others.end()) {}
  std::vector<S> chosen, other;
};

// Scratch memory of the calling thread, for all threads that work for it. It is kept: fresh
// memory costs more than most calls.
std::byte* scratch_memory(std::size_t bytes) {
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  thread_local std::unique_ptr<std::byte, Free> memory;
  thread_local std::size_t held = 0;
  if (held < bytes) {
    memory.reset();
    held = 0;
    memory.reset(static_cast<std::byte*>(std::calloc(bytes + 64, 1)));
    if (!memory) throw std::bad_alloc();
    held = bytes;
  }
  const auto address = reinterpret_cast<std::uintptr_t>(memory.get());
  return memory.get() + (64 - address % 64) % 64;
}

// Asks for huge pages under a large result. glibc maps memory of this size afresh for every tensor,
// and to fault it in page by page takes longer than the pooling.
void prefer_huge_pages([[maybe_unused]] void* memory, [[maybe_unused]] Index bytes) {
#if defined(MADV_HUGEPAGE)
  constexpr Index always_mapped = 32 << 20, huge = 2 << 20;
  if (bytes < always_mapped) return;
  const Index start = reinterpret_cast<Index>(memory);
  const Index low = (start + huge - 1) / huge * huge, high = (start + bytes) / huge * huge;
  if (low < high) madvise(reinterpret_cast<void*>(low), high - low, MADV_HUGEPAGE);
#endif
}

constexpr Index elements_worth_a_thread = 16 * 1024;

Index scalar_bytes(Element element) { return element == float64 ? 8 : 4; }

Index bytes_of(const Problem& problem, Element element, bool as_input) {
  constexpr Index bytes[elements] = {4, 8, 2, 2};
  const auto size = [&](const Axis& axis) { return as_input ? axis.inputs : axis.outputs; };
  return problem.outer * problem.inner * size(problem.depth) * size(problem.height) *
         size(problem.width) * bytes[element];
}

using Family = Kernels::Family;

// What is asked of the kernels: which of a family, and what to fall back on if they meet NaN (null
// where they do not mind).
struct Task {
  bool overlap;
  Kernels::Vectorised Family::*which;
  Kernels::Plain Kernels::*plain;
};

struct Way {
  Problem problem;
  Plan plan;
  Kernels::Vectorised kernel;
};

// The fastest way to do a task; the problem may be told in other words for it.
Way choose(const Job& job, Element element, const Task& task, Index threads) {
  Problem problem = job.problem;
  const Kernels& kernels = *in_use.kernels[element];
  const auto kernel = [&](const Family& family) { return family.*task.which; };
  const bool first = job.choice.pick == Pick::first;
  if (kernel(kernels.cells) && first && Plan::is_cells(problem))
    return {problem, Plan::of_cells(problem, threads), kernel(kernels.cells)};
  if (kernel(kernels.threes) && first && !job.watch_infinity && Plan::is_threes(problem))
    return {problem, Plan::of_threes(problem, threads), kernel(kernels.threes)};
  if (kernel(kernels.pixels) && Plan::is_pixels(problem)) {
    // Pixels of a line become slices, which are made ready a few at a time.
    const auto single = [](const Axis& axis) { return axis.inputs == 1 && axis.kernel == 1; };
    if (single(problem.depth) && single(problem.height)) std::swap(problem.depth, problem.width);
    return {problem, Plan::of_pixels(problem, threads), kernel(kernels.pixels)};
  }
  return {problem, Plan(problem, task.overlap, scalar_bytes(element), threads),
          kernel(kernels.general)};
}

Report run(Job& job, Element element, const Task& task, Index threads) {
  const Problem problem = job.problem;
  const Index size = problem.outer * problem.inner * problem.depth.inputs *
                     problem.height.inputs * problem.width.inputs;
  Report total{};
  if (size == 0) return total;
  if (job.result) prefer_huge_pages(job.result, bytes_of(problem, element, task.overlap));
  const Index useful = std::max<Index>(1, std::min(threads, size / elements_worth_a_thread));
  const auto [told, plan, kernel] = choose(job, element, task, useful);
  job.problem = told;
  job.layout = plan.layout();
  const Index blocks = plan.blocks();
  const int team = static_cast<int>(std::min(useful, blocks));
  const std::size_t bytes = (plan.scratch_bytes() + 63) / 64 * 64;
  std::byte* const scratch = scratch_memory(bytes * static_cast<std::size_t>(team));
  std::vector<Report> reports(static_cast<std::size_t>(blocks));
  // One thread takes no detour over the thread pool.
  if (team == 1) {
    for (Index b = 0; b < blocks; ++b)
      reports[b] = kernel(job, plan.block(b), scratch);
  } else {
#pragma omp parallel num_threads(team)
    {
#if defined(_OPENMP)
      std::byte* const mine = scratch + bytes * static_cast<std::size_t>(omp_get_thread_num());
#else
      std::byte* const mine = scratch;
#endif
#pragma omp for schedule(dynamic)
      for (Index b = 0; b < blocks; ++b)
        reports[b] = kernel(job, plan.block(b), mine);
    }
  }

  std::vector<Index> again;
  for (Index b = 0; b < blocks; ++b) {
    if (!task.plain || !reports[b].unordered) continue;
    const Block block = plan.block(b);
    for (Index outer = block.outer; outer < block.outer + block.planes; ++outer)
      if (again.empty() || again.back() < outer) again.push_back(outer);
  }
  for (Index b = 0; b < blocks; ++b) {
    const Block block = plan.block(b);
    const auto next = std::lower_bound(again.begin(), again.end(), block.outer);
    if (next != again.end() && *next < block.outer + block.planes) continue;
    total.census.tied += reports[b].census.tied;
    total.census.tied_at_zero += reports[b].census.tied_at_zero;
  }
  const Kernels& kernels = *in_use.kernels[element];
  const Index count = static_cast<Index>(again.size());
  std::vector<Report> replaced(again.size());
#pragma omp parallel for schedule(dynamic) num_threads(team) if (count > 1)
  for (Index i = 0; i < count; ++i) replaced[i] = (kernels.*task.plain)(job, again[i]);
  for (const Report& report : replaced) {
    total.census.tied += report.census.tied;
    total.census.tied_at_zero += report.census.tied_at_zero;
    total.unordered |= report.unordered;
  }
  return total;
}

Report run_linear(Job& job, Element element, const Task& task, Index threads) {
  const auto with = [&](const auto& shares) {
    job.tables = {shares.chosen.data(), shares.other.data()};
    return run(job, element, task, threads);
  };
  if (!job.choice.shared) return run(job, element, task, threads);
  if (element == float64) return with(Shares<double>(job.choice));
  return with(Shares<float>(job.choice));
}

Problem make_problem(Index outer, Index inner, const std::array<Index, 6>& depth,
                     const std::array<Index, 6>& height, const std::array<Index, 6>& width) {
  const auto axis = [](const std::array<Index, 6>& a) {
    return Axis{a[0], a[1], a[2], a[3], a[4], a[5]};
  };
  return {outer, inner, axis(depth), axis(height), axis(width)};
}

Choice make_choice(const std::string& kind, std::uint64_t seed, std::vector<double> picked,
                   std::vector<double> others) {
  if (kind == "native") return {Pick::first, false, true, 0, {}, {}};
  if (kind == "first") return {Pick::first, false, false, 0, {}, {}};
  if (kind == "last") return {Pick::last, false, false, 0, {}, {}};
  if (kind == "random") return {Pick::random, false, false, seed, {}, {}};
  return {Pick::first, true, false, 0, std::move(picked), std::move(others)};
}

template <class Pointer>
Pointer at(std::uintptr_t address) {
  return reinterpret_cast<Pointer>(address);
}

// Bytes that are passed from one step to another, of each thread: they should stay in the cache.
constexpr Index step_bytes = 512 * 1024;

// Whether to take the maxima of each slice first, and then those over slices: where windows overlap
// much, that is by far less to compare. The last NaN of the last slice that has one is the last of
// all, and the first of equal values the first.
bool is_separable(const Problem& problem) {
  const Axis& depth = problem.depth;
  const Index slice = problem.height.kernel * problem.width.kernel;
  return problem.outer > 0 && depth.kernel * slice >= 2 * (depth.stride * slice + depth.kernel);
}

void pool(const Problem& problem, Element element, const std::byte* input, std::byte* output,
          Index threads) {
  const auto directly = [&] {
    Job job{};
    job.problem = problem;
    job.input = input;
    job.result = output;
    run(job, element, {false, &Family::forward, nullptr}, threads);
  };
  if (!is_separable(problem)) return directly();
  constexpr Axis single{1, 1, 1, 1, 0, 1};
  const Problem one{1, problem.inner, problem.depth, problem.height, problem.width};
  const Index input_bytes = bytes_of(one, element, true);
  const Index output_bytes = bytes_of(one, element, false);
  const Index bytes = output_bytes / problem.depth.outputs * problem.depth.inputs;
  // Images too large for that would take memory of their own size.
  if (bytes > 16 * step_bytes) return directly();
  const Index step = std::clamp<Index>(threads * step_bytes / bytes, 1, problem.outer);
  const Index inner = problem.inner * problem.height.outputs * problem.width.outputs;
  const std::unique_ptr<std::byte[]> maxima(new std::byte[step * bytes]);
  for (Index outer = 0; outer < problem.outer; outer += step) {
    const Index count = std::min(step, problem.outer - outer);
    pool({count * problem.depth.inputs, problem.inner, problem.height, single, problem.width},
         element, input + outer * input_bytes, maxima.get(), threads);
    pool({count, inner, single, single, problem.depth}, element, maxima.get(),
         output + outer * output_bytes, threads);
  }
}

void forward(const Problem& problem, int element, std::uintptr_t input, std::uintptr_t output,
             Index threads) {
  pool(problem, Element(element), at<const std::byte*>(input), at<std::byte*>(output), threads);
}

std::tuple<Index, Index> ties(const Problem& problem, int element, std::uintptr_t input,
                              std::uintptr_t output, Index threads) {
  Job job{};
  job.problem = problem;
  job.input = at<const void*>(input);
  job.result = at<void*>(output);
  const Task task{false, &Family::ties, &Kernels::plain_ties};
  const Report report = run(job, Element(element), task, threads);
  return {report.census.tied, report.census.tied_at_zero};
}

bool linear(const Problem& problem, int element, const Choice& choice, bool watch_infinity,
            std::uintptr_t input, std::uintptr_t gradient, std::uintptr_t result, Index threads,
            bool backward) {
  Job job{};
  job.problem = problem;
  job.choice = choice;
  job.input = at<const void*>(input);
  job.gradient = at<const void*>(gradient);
  job.result = at<void*>(result);
  job.watch_infinity = watch_infinity;
  const Task task = backward ? Task{true, &Family::vjp, &Kernels::plain_vjp}
                             : Task{false, &Family::jvp, &Kernels::plain_jvp};
  const Report report = run_linear(job, Element(element), task, threads);
  return !report.unordered;
}

Counts equal(int bytes, std::uintptr_t entries, Index count, std::uintptr_t numbers, Index how_many,
             Index threads) {
  return count_equal(bytes, at<const void*>(entries), count, at<const void*>(numbers), how_many,
                     threads);
}

std::int64_t attained(int bytes, std::uintptr_t entries, std::uintptr_t values, Index outer,
                      Index count, Index inner, Index threads) {
  return count_attained(bytes, at<const void*>(entries), at<const void*>(values), outer, count,
                        inner, threads);
}

std::int64_t gathered(int bytes, std::uintptr_t entries, Index rows, std::uintptr_t where,
                      std::uintptr_t of, Index none, std::uintptr_t values, Index inner,
                      Index threads) {
  const Rows all{rows, at<const Index*>(where), at<const Index*>(of), none};
  return count_gathered(bytes, at<const void*>(entries), all, at<const void*>(values), inner,
                        threads);
}

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const InstructionSet& set : supported()) names.push_back(set.name);
  return names;
}

void use_instruction_set(const std::string& name) {
  for (const InstructionSet& set : supported())
    if (set.name == name) {
      in_use = set;
      return;
    }
  throw std::invalid_argument("instruction set not supported here: " + name);
}

}  // namespace
}  // namespace kinkcheck

NB_MODULE(_extension, m) {
  using namespace kinkcheck;
  const auto unlocked = nb::call_guard<nb::gil_scoped_release>();
  nb::class_<Problem>(m, "Problem")
      .def("__init__",
           [](Problem* self, Index outer, Index inner, const std::array<Index, 6>& depth,
              const std::array<Index, 6>& height, const std::array<Index, 6>& width) {
             new (self) Problem(make_problem(outer, inner, depth, height, width));
           });
  nb::class_<Choice>(m, "Choice")
      .def("__init__", [](Choice* self, const std::string& kind, std::uint64_t seed,
                          std::vector<double> picked, std::vector<double> others) {
        new (self) Choice(make_choice(kind, seed, std::move(picked), std::move(others)));
      });
  m.def("forward", &forward, unlocked);
  m.def("ties", &ties, unlocked);
  m.def("linear", &linear, unlocked);
  m.def("count_equal", &equal, unlocked);
  m.def("count_attained", &attained, unlocked);
  m.def("count_gathered", &gathered, unlocked);
  m.def("instruction_sets", &instruction_sets);
  m.def("use_instruction_set", &use_instruction_set);
  m.def("instruction_set_in_use", [] { return std::string(in_use.name); });
  m.attr("openmp") =
#if defined(_OPENMP)
      true;
#else
      false;
#endif
}
