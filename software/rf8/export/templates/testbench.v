// Self-checking testbench of @{name}, made by `rf8 verilog`: plain Verilog-2005.
//
// Runs a program from @{name}_tb.hex and compares what it stores with @{name}_tb_expected.hex; then a
// program with an illegal instruction, then the first one again. Prints PASS, or FAIL and why.

module @{name}_tb;
  // The machine.
  localparam BUS_BYTES = @{bus_bytes};
  localparam BUS_BITS = 8 * BUS_BYTES;

  // The image: sizes in bus words, addresses in bytes. The results are at address 0.
  localparam WORDS = @{words};
  localparam RESULT_WORDS = @{result_words};
  localparam [31:0] PROGRAM = 32'h@{program};
  localparam [31:0] BAD_PROGRAM = 32'h@{bad_program};
  localparam [31:0] BAD_ADDRESS = 32'h@{bad_address};  // of its illegal instruction
  localparam [31:0] BAD_CODE = @{bad_code};

  // The memory: cycles from a request to its first beat, and from the last beat to its answer.
  localparam LATENCY = 20;
  localparam TIMEOUT = @{timeout};

  // Registers.
@{registers}
  localparam [31:0] STATUS_DONE = 32'h@{status_done};
  localparam [31:0] STATUS_ERROR = 32'h@{status_error};

  reg clk = 0;
  reg rst = 1;
  always #5 clk = !clk;

@{declarations}

  @{name} dut (
@{connections}
  );

  // Ends the simulation once; what comes after the first failure says nothing.
  reg over = 0;
  task finish;
    begin
      over = 1;
      $finish;
    end
  endtask

  reg [31:0] cycle = 0;
  always @(posedge clk) begin
    cycle <= cycle + 1;
    if (cycle == TIMEOUT && !over) begin
      $display("FAIL: not done after %0d cycles", TIMEOUT);
      finish;
    end
  end

  // Pseudo-random numbers (xorshift); a channel stands still in a quarter of all cycles.
  reg [31:0] random = 32'h52463801;
  function [31:0] next_random(input [31:0] value);
    begin
      next_random = value ^ (value << 13);
      next_random = next_random ^ (next_random >> 17);
      next_random = next_random ^ (next_random << 5);
    end
  endfunction
  always @(posedge clk) random <= next_random(random);
  wire stall_ar = random[1:0] == 0;
  wire stall_r = random[7:6] == 0;
  wire stall_aw = random[13:12] == 0;
  wire stall_w = random[19:18] == 0;
  wire stall_b = random[25:24] == 0;

  // ---------------------------------------------------------------------------------------------
  // External memory on AXI4: one read burst and one write burst at a time.

  localparam [1:0] OKAY = 0;
  localparam [1:0] DECODE_ERROR = 3;

  reg [BUS_BITS-1:0] memory [0:WORDS-1];
  reg [BUS_BITS-1:0] expected [0:RESULT_WORDS-1];

  reg reading = 0;
  reg [1:0] read_id = 0;
  reg [31:0] read_word = 0;
  reg [7:0] read_left = 0;
  reg [31:0] read_due = 0;
  always @(posedge clk) begin
    m_axi_arready <= !reading && !(m_axi_arvalid && m_axi_arready) && !stall_ar;
    if (m_axi_rready) m_axi_rvalid <= 0;
    if (m_axi_arvalid && m_axi_arready) begin
      reading <= 1;
      read_id <= m_axi_arid;
      read_word <= @{araddr} / BUS_BYTES;
      read_left <= m_axi_arlen;
      read_due <= cycle + LATENCY;
    end else if (reading && cycle >= read_due && (!m_axi_rvalid || m_axi_rready) && !stall_r) begin
      m_axi_rvalid <= 1;
      m_axi_rid <= read_id;
      m_axi_rdata <= read_word < WORDS ? memory[read_word] : {BUS_BITS{1'b0}};
      m_axi_rresp <= read_word < WORDS ? OKAY : DECODE_ERROR;
      m_axi_rlast <= read_left == 0;
      read_word <= read_word + 1;
      read_left <= read_left - 8'd1;
      reading <= read_left != 0;
    end
  end

  wire [BUS_BITS-1:0] written_bits;
  genvar lane;
  generate
    for (lane = 0; lane < BUS_BYTES; lane = lane + 1) begin : strobes
      assign written_bits[8*lane+:8] = {8{m_axi_wstrb[lane]}};
    end
  endgenerate

  reg writing = 0;
  reg answering = 0;
  reg [31:0] write_word = 0;
  reg [31:0] write_due = 0;
  always @(posedge clk) begin
    m_axi_awready <= !writing && !answering && !(m_axi_awvalid && m_axi_awready) && !stall_aw;
    m_axi_wready <= writing && !(m_axi_wvalid && m_axi_wready && m_axi_wlast) && !stall_w;
    if (m_axi_awvalid && m_axi_awready) begin
      writing <= 1;
      write_word <= @{awaddr} / BUS_BYTES;
      m_axi_bid <= m_axi_awid;
    end
    if (m_axi_wvalid && m_axi_wready) begin
      if (write_word >= RESULT_WORDS && !over) begin
        $display("FAIL: the machine writes to address 0x%h", write_word * BUS_BYTES);
        finish;
      end
      memory[write_word] <= (memory[write_word] & ~written_bits) | (m_axi_wdata & written_bits);
      write_word <= write_word + 1;
      if (m_axi_wlast) begin
        writing <= 0;
        answering <= 1;
        write_due <= cycle + LATENCY;
      end
    end
    if (m_axi_bvalid && m_axi_bready) begin
      m_axi_bvalid <= 0;
      answering <= 0;
    end else if (answering && cycle >= write_due && !stall_b) m_axi_bvalid <= 1;
  end

  // ---------------------------------------------------------------------------------------------
  // The host: registers on AXI4-Lite. It moves at falling edges, looks at rising ones.

  task pause;
    repeat ({30'd0, random[9:8]}) @(negedge clk);
  endtask

  // This machine takes address and data in the same cycle.
  task write_register(input [11:0] offset, input [31:0] value);
    begin
      @(negedge clk) pause;
      s_axi_awaddr = offset;
      s_axi_wdata = value;
      s_axi_wstrb = 4'hf;
      s_axi_awvalid = 1;
      s_axi_wvalid = 1;
      @(posedge clk) while (!(s_axi_awready && s_axi_wready)) @(posedge clk);
      @(negedge clk);
      s_axi_awvalid = 0;
      s_axi_wvalid = 0;
      pause;
      s_axi_bready = 1;
      @(posedge clk) while (!s_axi_bvalid) @(posedge clk);
      @(negedge clk) s_axi_bready = 0;
    end
  endtask

  task check_register(input [11:0] offset, input [31:0] value);
    begin
      @(negedge clk) pause;
      s_axi_araddr = offset;
      s_axi_arvalid = 1;
      @(posedge clk) while (!s_axi_arready) @(posedge clk);
      @(negedge clk) s_axi_arvalid = 0;
      pause;
      s_axi_rready = 1;
      @(posedge clk) while (!s_axi_rvalid) @(posedge clk);
      if (s_axi_rdata !== value && !over) begin
        $display("FAIL: register 0x%h is 0x%h, expected 0x%h", offset, s_axi_rdata, value);
        finish;
      end
      @(negedge clk) s_axi_rready = 0;
    end
  endtask

  task run(input [31:0] program_address);
    begin
      write_register(PROGRAM_REGISTER, program_address);
      check_register(PROGRAM_REGISTER, program_address);
      write_register(CONTROL, 1);
      while (!irq) @(posedge clk);
    end
  endtask

  integer word;
  integer part;
  task check_results;
    for (word = 0; word < RESULT_WORDS; word = word + 1)
      for (part = 0; part < BUS_BITS; part = part + 32)
        if (memory[word][part+:32] !== expected[word][part+:32] && !over) begin
          $display("FAIL: result at address 0x%h is 0x%h, expected 0x%h",
                   word * BUS_BYTES + part / 8, memory[word][part+:32],
                   expected[word][part+:32]);
          finish;
        end
  endtask

  task run_and_check;
    begin
      $readmemh("@{name}_tb.hex", memory);  // also erases the results of the run before
      run(PROGRAM);
      check_register(STATUS, STATUS_DONE);
      check_register(ERROR_ADDRESS, 0);
      check_results;
    end
  endtask

  initial begin
    $readmemh("@{name}_tb_expected.hex", expected);
    repeat (4) @(negedge clk);
    rst = 0;
    check_register(ID, 32'h@{id});
    check_register(CONFIG, 32'h@{config});
    check_register(STATUS, 0);
    write_register(WATCHDOG, 32'd100000);
    check_register(WATCHDOG, 32'd100000);
    write_register(INTERRUPT, 1);

    run_and_check;
@{counters}

    run(BAD_PROGRAM);
    check_register(STATUS, STATUS_ERROR | BAD_CODE << @{code_shift});
    check_register(ERROR_ADDRESS, BAD_ADDRESS);
    run_and_check;

    if (!over) begin
      $display("PASS: @{name}, %0d result words compared twice, %0d cycles",
               RESULT_WORDS * (BUS_BYTES / 4), cycle);
      finish;
    end
  end
endmodule
