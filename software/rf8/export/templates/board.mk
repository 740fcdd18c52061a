bitstream: top_@{board}.bit

top_@{board}.json: top_@{board}.v @{name}.v @{name}_tb.hex @{name}_tb_expected.hex
	$(YOSYS) -q -l yosys.log -D RF8_ECP5 -p 'synth_ecp5 -top top_@{board} -json $@' top_@{board}.v @{name}.v

top_@{board}.config: top_@{board}.json @{board}.lpf
	$(NEXTPNR) -q @{nextpnr} --json $< --lpf @{board}.lpf --textcfg $@ --log nextpnr.log

top_@{board}.bit: top_@{board}.config
	$(ECPPACK) --compress $< $@

load: top_@{board}.bit
	$(LOADER) @{loader} $<
