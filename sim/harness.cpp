// Drives the Verilated accelerator: clock, an external memory with latency, bandwidth and random
// stalls, and register accesses. One C interface, used by sim/rtl.py through ctypes.

#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <vector>

#include "Vrf8.h"
#include "Vrf8___024root.h"
#include "counters.h"  // RF8_COUNTERS(X): X(name) of each, in the order of golden.isa.COUNTERS
#include "verilated.h"
#if VM_TRACE
#include "verilated_fst_c.h"
#endif

namespace {

struct Settings {          // mirrored by sim/rtl.py
  uint32_t bus_bytes;      // bytes of one beat
  uint32_t latency;        // cycles from a request to its first beat, or from last beat to answer
  uint32_t beats_per_1024; // bandwidth: data beats in 1,024 cycles, 1,024 is one each cycle
  uint32_t stall_per_1024; // chance that a channel that could move stands still for a cycle
  uint64_t seed;           // of the stalls; not 0
};

struct Written {  // mirrored by sim/rtl.py
  uint64_t address;
  uint64_t cycle;
};

struct Step {  // when an instruction began, and the counters then
  uint64_t address, cycle;
#define X(name) uint64_t name;
  RF8_COUNTERS(X)
#undef X
};

struct Burst {
  uint64_t address, due;
  uint32_t beats, id;
};

class Machine {
 public:
  Machine(uint8_t* memory, uint64_t size, const Settings& settings)
      : memory_(memory), size_(size), set_(settings), random_(settings.seed),
        context_(new VerilatedContext), top_(new Vrf8(context_.get())) {
#if VM_TRACE
    context_->traceEverOn(true);
#endif
    reset();
  }

  ~Machine() {
    // The model's names of what is looked at inside are taken from the thread's context, which may
    // be that of a machine that is gone.
    Verilated::threadContextp(context_.get());
    trace(nullptr);
    top_->final();
  }

  void reset() {
    reads_.clear();
    answers_.clear();
    writing_.clear();
    top_->rst = 1;
    for (int i = 0; i < 4; i++) tick();
    top_->rst = 0;
    tick();
  }

  void write_register(uint32_t address, uint32_t value) {
    top_->s_axi_awaddr = address;
    top_->s_axi_wdata = value;
    top_->s_axi_wstrb = 15;
    top_->s_axi_awvalid = top_->s_axi_wvalid = top_->s_axi_bready = 1;
    bool taken = false;
    while (!taken) {
      tick();
      taken = lite_write_;
    }
    top_->s_axi_awvalid = top_->s_axi_wvalid = 0;
    while (!top_->s_axi_bvalid) tick();
    tick();
  }

  uint32_t read_register(uint32_t address) {
    top_->s_axi_araddr = address;
    top_->s_axi_arvalid = 1;
    top_->s_axi_rready = 0;
    bool taken = false;
    while (!taken) {
      tick();
      taken = lite_read_;
    }
    top_->s_axi_arvalid = 0;
    while (!top_->s_axi_rvalid) tick();
    uint32_t value = top_->s_axi_rdata;
    top_->s_axi_rready = 1;
    tick();
    return value;
  }

  // Clocks until the interrupt; false if it has not come after `limit` cycles.
  bool run(uint64_t limit) {
    if (profiling) step();
    for (uint64_t i = 0; i < limit; i++) {
      tick();
      if (profiling && top_->rootp->rf8__DOT__sequencer__DOT__pc != steps.back().address) step();
      if (top_->irq) {
        if (profiling) step();
        return true;
      }
    }
    return false;
  }

  bool trace(const char* path) {
#if VM_TRACE
    if (trace_) trace_->close();
    trace_.reset();
    if (path) {
      trace_.reset(new VerilatedFstC);
      top_->trace(trace_.get(), 99);
      trace_->open(path);
    }
    return true;
#else
    return path == nullptr;
#endif
  }

  uint64_t cycle() const { return cycle_; }
  std::vector<Written> written;
  std::vector<Step> steps;
  bool profiling = false;

 private:
  void step() {
    const auto* inside = top_->rootp;
#define X(name) inside->rf8__DOT__control__DOT__counter_##name,
    steps.push_back({inside->rf8__DOT__sequencer__DOT__pc, cycle_, RF8_COUNTERS(X)});
#undef X
  }

  bool stalls() {
    if (!set_.stall_per_1024) return false;
    random_ ^= random_ << 13;
    random_ ^= random_ >> 7;
    random_ ^= random_ << 17;
    return ((random_ >> 20) & 1023) < set_.stall_per_1024;
  }

  bool inside(uint64_t address) const { return address + set_.bus_bytes <= size_; }

  void drive() {
    // Read data: bursts in order, when they are due and there is bandwidth.
    if (credit_ < 1024) credit_ += set_.beats_per_1024;
    if (!top_->m_axi_rvalid && !reads_.empty() && reads_.front().due <= cycle_ &&
        credit_ >= 1024 && !stalls()) {
      const Burst& burst = reads_.front();
      bool ok = inside(burst.address);
      if (ok) memcpy(&top_->m_axi_rdata, memory_ + burst.address, set_.bus_bytes);
      top_->m_axi_rid = burst.id;
      top_->m_axi_rresp = ok ? 0 : 3;
      top_->m_axi_rlast = burst.beats == 1;
      top_->m_axi_rvalid = 1;
      credit_ -= 1024;
    }
    if (!top_->m_axi_bvalid && !answers_.empty() && answers_.front().due <= cycle_ && !stalls()) {
      top_->m_axi_bid = answers_.front().id;
      top_->m_axi_bresp = answers_.front().beats;  // the answer itself
      top_->m_axi_bvalid = 1;
    }
    top_->m_axi_arready = reads_.size() < 64 && !stalls();
    top_->m_axi_awready = writing_.size() < 4 && !stalls();
    top_->m_axi_wready = !writing_.empty() && !stalls();
  }

  void tick() {
    drive();
    top_->clk = 0;
    top_->eval();
#if VM_TRACE
    if (trace_) trace_->dump(2 * cycle_);
#endif
    bool ar = top_->m_axi_arvalid && top_->m_axi_arready;
    bool aw = top_->m_axi_awvalid && top_->m_axi_awready;
    bool w = top_->m_axi_wvalid && top_->m_axi_wready;
    bool r = top_->m_axi_rvalid && top_->m_axi_rready;
    bool b = top_->m_axi_bvalid && top_->m_axi_bready;
    lite_write_ = top_->s_axi_awvalid && top_->s_axi_awready;
    lite_read_ = top_->s_axi_arvalid && top_->s_axi_arready;
    if (w) write_beat();
    if (ar)
      reads_.push_back({top_->m_axi_araddr, cycle_ + set_.latency, top_->m_axi_arlen + 1u,
                        top_->m_axi_arid});
    if (aw) writing_.push_back({top_->m_axi_awaddr, 0, 0, top_->m_axi_awid});
    top_->clk = 1;
    top_->eval();
#if VM_TRACE
    if (trace_) trace_->dump(2 * cycle_ + 1);
#endif
    if (r) {
      top_->m_axi_rvalid = 0;
      reads_.front().address += set_.bus_bytes;
      if (--reads_.front().beats == 0) reads_.pop_front();
    }
    if (b) {
      top_->m_axi_bvalid = 0;
      answers_.pop_front();
    }
    cycle_++;
  }

  void write_beat() {
    Burst& burst = writing_.front();
    if (inside(burst.address)) {
      uint8_t beat[128];
      memcpy(beat, &top_->m_axi_wdata, set_.bus_bytes);
      uint8_t strobes[16];
      memcpy(strobes, &top_->m_axi_wstrb, (set_.bus_bytes + 7) / 8);
      for (uint32_t i = 0; i < set_.bus_bytes; i++)
        if (strobes[i / 8] >> (i % 8) & 1) memory_[burst.address + i] = beat[i];
      written.push_back({burst.address, cycle_});
    } else {
      burst.beats = 3;
    }
    burst.address += set_.bus_bytes;
    if (top_->m_axi_wlast) {
      answers_.push_back({0, cycle_ + set_.latency, burst.beats, burst.id});
      writing_.pop_front();
    }
  }

  uint8_t* memory_;
  uint64_t size_;
  Settings set_;
  uint64_t random_, cycle_ = 0;
  uint32_t credit_ = 1024;
  bool lite_write_ = false, lite_read_ = false;
  std::deque<Burst> reads_, writing_, answers_;
  std::unique_ptr<VerilatedContext> context_;
  std::unique_ptr<Vrf8> top_;
#if VM_TRACE
  std::unique_ptr<VerilatedFstC> trace_;
#endif
};

}  // namespace

extern "C" {
Machine* rf8_new(uint8_t* memory, uint64_t size, const Settings* settings) {
  return new Machine(memory, size, *settings);
}
void rf8_free(Machine* m) { delete m; }
void rf8_reset(Machine* m) { m->reset(); }
void rf8_write(Machine* m, uint32_t address, uint32_t value) { m->write_register(address, value); }
uint32_t rf8_read(Machine* m, uint32_t address) { return m->read_register(address); }
int rf8_run(Machine* m, uint64_t limit) { return m->run(limit); }
int rf8_trace(Machine* m, const char* path) { return m->trace(path); }
uint64_t rf8_cycle(Machine* m) { return m->cycle(); }
uint64_t rf8_written(Machine* m, const Written** first) {
  *first = m->written.data();
  return m->written.size();
}
void rf8_forget_written(Machine* m) { m->written.clear(); }
void rf8_profile(Machine* m, int on) {
  m->profiling = on;
  m->steps.clear();
}
uint64_t rf8_steps(Machine* m, const Step** first) {
  *first = m->steps.data();
  return m->steps.size();
}
}
