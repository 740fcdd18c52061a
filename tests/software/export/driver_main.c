/* Runs the C driver against the simulated machine; called by test_driver.py.
 *
 * usage: driver_main IMAGE ACTIONS TOKEN...
 * Prints the result of loading, then, if that is 0 and ACTIONS is "run": one line for each step. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rf8.h"

/* The library of sim/harness.cpp. */
struct settings {
    uint32_t bus_bytes, latency, beats_per_1024, stall_per_1024;
    uint64_t seed;
};
void *rf8_new(uint8_t *memory, uint64_t size, const struct settings *settings);
void rf8_free(void *machine);
void rf8_write(void *machine, uint32_t address, uint32_t value);
uint32_t rf8_read(void *machine, uint32_t address);

enum { MEMORY_SIZE = 1 << 20, POLLS = 100000 };

static uint8_t memory[MEMORY_SIZE], image[MEMORY_SIZE];

static uint32_t read_register(void *context, uint32_t offset) { return rf8_read(context, offset); }

static void write_register(void *context, uint32_t offset, uint32_t value) {
    rf8_write(context, offset, value);
}

static uint32_t wrong_id(void *context, uint32_t offset) {
    return offset == RF8_REG_ID ? 0xdeadbeefu : rf8_read(context, offset);
}

static void describe(const struct rf8_device *device, const char *what, int result) {
    char text[RF8_DESCRIPTION_SIZE];
    rf8_describe(device, text);
    printf("%s %d %s\n", what, result, text);
}

static void show(const struct rf8_device *device, const struct rf8_program *program,
                 uint32_t column) {
    int32_t *logits = malloc(program->vocab * sizeof *logits);
    if (rf8_get_logits(device, program, column, logits)) exit(4);
    printf("logits");
    for (uint32_t i = 0; i < program->vocab; i++) printf(" %ld", (long)logits[i]);
    printf("\n");
    free(logits);
}

static void run(struct rf8_device *device, const struct rf8_program *program,
                const uint32_t *tokens) {
    const uint32_t columns = (RF8_CONFIG & RF8_CONFIG_COLS_MASK) >> RF8_CONFIG_COLS_SHIFT;
    const uint32_t wrong[] = {program->vocab};
    int32_t none;
    printf("bounds %d %d %d %d\n", rf8_get_logits(device, program, columns, &none),
           rf8_run(device, program, 0, tokens, columns + 1, 1, POLLS),
           rf8_run(device, program, program->context, tokens, 1, 1, POLLS),
           rf8_run(device, program, 0, wrong, 1, 1, POLLS));

    describe(device, "prefill", rf8_run(device, program, 0, tokens, columns, 0, POLLS));
    describe(device, "run", rf8_run(device, program, columns, tokens + columns, columns, 1, POLLS));
    for (uint32_t column = 0; column < columns; column++) show(device, program, column);
    printf("counters");
#define SHOW(name, offset) printf(" %s %llu", name, (unsigned long long)rf8_read_counter(device, offset));
    RF8_COUNTERS(SHOW)
    printf("\n");

    /* Zeros are no program. */
    uint32_t erased = MEMORY_SIZE - 4096;
    memset(memory + erased, 0, 4096);
    describe(device, "illegal", rf8_execute(device, erased, POLLS));
    uint32_t start = rf8_entry(program, 1, 1);
    int result = rf8_start(device, start);
    printf("twice %d %d %d %d\n", result, rf8_start(device, start), rf8_wait(device, 1),
           rf8_run(device, program, 0, tokens, 1, 1, POLLS));
    rf8_stop(device);
    describe(device, "stopped", rf8_wait(device, POLLS));
    describe(device, "again", rf8_run(device, program, 0, tokens, 1, 1, POLLS));
    show(device, program, 0);
}

int main(int count, char **arguments) {
    if (count < 3) return 2;
    FILE *in = fopen(arguments[1], "rb");
    uint32_t tokens[32] = {0};
    if (!in || count > 35) return 2;
    for (int i = 3; i < count; i++) tokens[i - 3] = (uint32_t)strtoul(arguments[i], NULL, 10);
    size_t size = fread(image, 1, sizeof image, in);
    const struct settings settings = {
        (RF8_CONFIG & RF8_CONFIG_BUS_BYTES_MASK) >> RF8_CONFIG_BUS_BYTES_SHIFT, 20, 1024, 200, 77};
    void *machine = rf8_new(memory, MEMORY_SIZE, &settings);
    struct rf8_device device = {NULL,    read_register, write_register,
                                machine, memory,        MEMORY_SIZE};
    struct rf8_device other = device;
    struct rf8_program program;
    other.read = wrong_id;
    printf("open %d %d\n", rf8_open(&device), rf8_open(&other));
    other = device;
    other.memory_size = 8192;
    printf("small %d\n", rf8_load(&other, image, size, &program));
    int result = rf8_load(&device, image, size, &program);
    printf("load %d %s\n", result, rf8_result_name(result));
    if (result == RF8_OK && strcmp(arguments[2], "run") == 0) run(&device, &program, tokens);
    rf8_free(machine);
    return 0;
}
