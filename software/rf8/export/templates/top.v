// @{name} on the board @{board}, made by `rf8 verilog --board @{board}`: runs the testbench's program from
// block RAM and compares the results.
//
// led[0] is on while the program runs, led[1] after all results were right, led[2] after an error
// or a wrong result; led[7] blinks while the clock runs.

module top_@{board} (
    input clk,
    output [7:0] led
);
  localparam INDEX_BITS = @{index_bits};
  localparam WORDS = @{words};
  localparam RESULT_WORDS = @{result_words};

  // Reset in the first cycles after configuration.
  reg [3:0] awake = 0;
  wire rst = awake != 4'hf;
  always @(posedge clk) if (rst) awake <= awake + 4'd1;

@{declarations}

  @{name} accelerator (
@{connections}
  );

  // ---------------------------------------------------------------------------------------------
  // The host: sets the program, starts it, polls STATUS, compares.

  localparam [2:0] SET_PROGRAM = 0, START = 1, POLL = 2, COMPARE = 3, PASS = 4, FAIL = 5;
  reg [2:0] state = SET_PROGRAM;
  reg write_valid = 0;
  reg read_valid = 0;

  assign s_axi_awaddr = state == SET_PROGRAM ? 12'h@{program_offset} : 12'h@{control_offset};
  assign s_axi_wdata = state == SET_PROGRAM ? 32'h@{program} : 32'd1;
  assign s_axi_wstrb = 4'hf;
  assign s_axi_awvalid = write_valid;  // the accelerator takes both in the same cycle
  assign s_axi_wvalid = write_valid;
  assign s_axi_bready = 1'b1;
  assign s_axi_araddr = 12'h@{status_offset};
  assign s_axi_arvalid = read_valid;
  assign s_axi_rready = 1'b1;
  assign s_axi_awprot = 3'd0;
  assign s_axi_arprot = 3'd0;

  reg [INDEX_BITS-1:0] compared = 0;
  reg compared_valid = 0;  // the words that `compared` chose in the cycle before are there
  reg [@{bus_bits}-1:0] expected [0:RESULT_WORDS-1];
  reg [@{bus_bits}-1:0] wanted;
  initial $readmemh("@{name}_tb_expected.hex", expected);
  always @(posedge clk) wanted <= expected[compared[@{result_bits}-1:0]];

  always @(posedge clk) begin
    case (state)
      SET_PROGRAM, START: begin
        write_valid <= !rst && !(write_valid && s_axi_awready);
        if (write_valid && s_axi_awready) begin
          state <= state + 3'd1;
          read_valid <= state == START;
        end
      end
      POLL: begin
        if (s_axi_arready) read_valid <= 0;
        if (s_axi_rvalid) begin
          if (s_axi_rdata[@{busy_bit}]) read_valid <= 1;
          else state <= s_axi_rdata == 32'h@{status_done} ? COMPARE : FAIL;
        end
      end
      COMPARE: begin
        compared <= compared + 1'b1;
        compared_valid <= 1;
        if (compared_valid && m_axi_rdata != wanted) state <= FAIL;
        else if (compared == RESULT_WORDS) state <= PASS;
      end
      default: ;
    endcase
  end

  reg [23:0] ticks = 0;
  always @(posedge clk) ticks <= ticks + 24'd1;
  assign led = {ticks[23], 4'd0, state == FAIL, state == PASS, state == POLL};

  // ---------------------------------------------------------------------------------------------
  // Memory: block RAM on AXI4, one read burst and one write burst at a time. Addresses wrap. Byte
  // strobes are not looked at: the accelerator writes whole words.

  reg [@{bus_bits}-1:0] memory [0:WORDS-1];
  initial $readmemh("@{name}_tb.hex", memory);

  reg reading = 0;
  reg [1:0] read_id = 0;
  reg [INDEX_BITS-1:0] read_word = 0;
  reg [7:0] read_left = 0;
  reg read_beat = 0;
  reg read_last = 0;
  reg [@{bus_bits}-1:0] read_data;
  // Once the accelerator is done, the results are read through the same port.
  wire comparing = state == COMPARE;
  wire [INDEX_BITS-1:0] read_index = comparing ? compared : read_word;
  wire read_enable = !read_beat || m_axi_rready;
  always @(posedge clk) if (read_enable) read_data <= memory[read_index];
  always @(posedge clk) begin
    if (m_axi_arvalid && m_axi_arready) begin
      reading <= 1;
      read_id <= m_axi_arid;
      read_word <= m_axi_araddr[@{byte_bits}+:INDEX_BITS];
      read_left <= m_axi_arlen;
    end
    if (read_enable) begin
      read_beat <= reading;
      read_last <= read_left == 0;
      if (reading) begin
        read_word <= read_word + 1'b1;
        read_left <= read_left - 8'd1;
        reading <= read_left != 0;
      end
    end
  end
  assign m_axi_arready = !reading && !read_beat;
  assign m_axi_rvalid = read_beat;
  assign m_axi_rid = read_id;
  assign m_axi_rdata = read_data;
  assign m_axi_rresp = 2'd0;
  assign m_axi_rlast = read_last;

  reg writing = 0;
  reg answering = 0;
  reg [1:0] write_id = 0;
  reg [INDEX_BITS-1:0] write_word = 0;
  always @(posedge clk) begin
    if (m_axi_awvalid && m_axi_awready) begin
      writing <= 1;
      write_id <= m_axi_awid;
      write_word <= m_axi_awaddr[@{byte_bits}+:INDEX_BITS];
    end
    if (m_axi_wvalid && m_axi_wready) begin
      memory[write_word] <= m_axi_wdata;
      write_word <= write_word + 1'b1;
      writing <= !m_axi_wlast;
      answering <= m_axi_wlast;
    end
    if (m_axi_bready && answering) answering <= 0;
  end
  assign m_axi_awready = !writing && !answering;
  assign m_axi_wready = writing;
  assign m_axi_bvalid = answering;
  assign m_axi_bid = write_id;
  assign m_axi_bresp = 2'd0;
endmodule
