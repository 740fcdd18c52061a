/* Driver of the RF8 accelerator; see rf8.h. The layout of flat images is in docs/driver.md. */
#include "rf8.h"

#include <string.h>

enum {
    VERSION = 2,
    HEADER_BYTES = 64,
    CHECKED_FROM = 16, /* the checksum covers all that follows it */
    SECTION_BYTES = 16,
    ENTRY_BYTES = 16
};

/* Fields of the machine, from the value that CONFIG has. */
#define COLS ((RF8_CONFIG & RF8_CONFIG_COLS_MASK) >> RF8_CONFIG_COLS_SHIFT)

static uint32_t word(const uint8_t *bytes) {
    return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

static uint32_t crc32(const uint8_t *bytes, size_t size) {
    uint32_t table[16], crc = 0xffffffffu;
    for (uint32_t i = 0; i < 16; i++) {
        table[i] = i;
        for (int bit = 0; bit < 4; bit++) table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0xedb88320u : 0);
    }
    for (size_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

/* Whether `size` bytes from `start` on lie inside `limit` bytes; none of them can overflow. */
static int inside(uint64_t start, uint64_t size, uint64_t limit) {
    return start <= limit && size <= limit - start;
}

uint32_t rf8_read_register(const struct rf8_device *device, uint32_t offset) {
    if (device->registers) return device->registers[offset / 4];
    return device->read(device->context, offset);
}

void rf8_write_register(const struct rf8_device *device, uint32_t offset, uint32_t value) {
    if (device->registers)
        device->registers[offset / 4] = value;
    else
        device->write(device->context, offset, value);
}

int rf8_open(const struct rf8_device *device) {
    if (rf8_read_register(device, RF8_REG_ID) != RF8_ID) return RF8_WRONG_ID;
    return rf8_read_register(device, RF8_REG_CONFIG) == RF8_CONFIG ? RF8_OK : RF8_WRONG_CONFIG;
}

int rf8_load(const struct rf8_device *device, const void *image, size_t size,
             struct rf8_program *program) {
    static const char magic[8] = "RF8FLAT";
    static const uint32_t config[4] = {RF8_CONFIG, RF8_SPAN, RF8_MAX_K, RF8_SCRATCH_WORDS};
    const uint8_t *bytes = image;

    if (size < HEADER_BYTES) return RF8_TRUNCATED;
    if (memcmp(bytes, magic, sizeof magic)) return RF8_BAD_MAGIC;
    if (word(bytes + 8) != VERSION) return RF8_BAD_VERSION;
    if (word(bytes + 16) != size) return RF8_TRUNCATED;
    if (word(bytes + 12) != crc32(bytes + CHECKED_FROM, size - CHECKED_FROM))
        return RF8_BAD_CHECKSUM;
    for (int i = 0; i < 4; i++)
        if (word(bytes + 24 + 4 * i) != config[i]) return RF8_WRONG_CONFIG;
    if (rf8_read_register(device, RF8_REG_CONFIG) != RF8_CONFIG) return RF8_WRONG_CONFIG;

    uint64_t memory = word(bytes + 20);
    uint32_t sections = word(bytes + 40), entries = word(bytes + 44);
    uint64_t tables = (uint64_t)sections * SECTION_BYTES + (uint64_t)entries * ENTRY_BYTES;
    if (memory > device->memory_size || !inside(HEADER_BYTES, tables, size))
        return RF8_OUT_OF_BOUNDS;
    program->image = bytes;
    program->context = word(bytes + 48);
    program->vocab = word(bytes + 52);
    program->logits_address = word(bytes + 56);
    program->logits_stride = word(bytes + 60);
    program->entries = entries;
    program->entry_table = bytes + HEADER_BYTES + (size_t)sections * SECTION_BYTES;
    if (!inside(program->logits_address + (uint64_t)(COLS - 1) * program->logits_stride,
                4 * (uint64_t)program->vocab, memory))
        return RF8_OUT_OF_BOUNDS;
    for (uint32_t i = 0; i < entries; i++) {
        const uint8_t *entry = program->entry_table + (size_t)i * ENTRY_BYTES;
        if (word(entry) < 1 || word(entry) > COLS || word(entry + 8) >= memory)
            return RF8_OUT_OF_BOUNDS;
    }
    /* All sections are checked before the first is copied. */
    for (int copy = 0; copy < 2; copy++)
        for (uint32_t i = 0; i < sections; i++) {
            const uint8_t *section = bytes + HEADER_BYTES + (size_t)i * SECTION_BYTES;
            uint32_t address = word(section), count = word(section + 4), offset = word(section + 8);
            if (!inside(address, count, memory) || !inside(offset, count, size))
                return RF8_OUT_OF_BOUNDS;
            if (copy) memcpy(device->memory + address, bytes + offset, count);
        }
    return RF8_OK;
}

uint32_t rf8_entry(const struct rf8_program *program, uint32_t columns, int with_logits) {
    for (uint32_t i = 0; i < program->entries; i++) {
        const uint8_t *entry = program->entry_table + (size_t)i * ENTRY_BYTES;
        if (word(entry) == columns && word(entry + 4) == (with_logits != 0)) return word(entry + 8);
    }
    return 0;
}

int rf8_run(const struct rf8_device *device, const struct rf8_program *program, uint32_t position,
            const uint32_t *tokens, uint32_t columns, int with_logits, uint32_t polls) {
    uint32_t address = rf8_entry(program, columns, with_logits);
    if (!address) return RF8_NOT_FOUND;
    if (position >= program->context || columns > program->context - position)
        return RF8_OUT_OF_BOUNDS;
    if (rf8_read_register(device, RF8_REG_STATUS) & RF8_STATUS_BUSY_MASK) return RF8_BUSY;
    for (uint32_t column = 0; column < columns; column++)
        if (tokens[column] >= program->vocab) return RF8_OUT_OF_BOUNDS;
    rf8_write_register(device, RF8_REG_POSITION, position);
    rf8_write_register(device, RF8_REG_TOKEN_COLUMN, 0);
    for (uint32_t column = 0; column < columns; column++)
        rf8_write_register(device, RF8_REG_TOKEN, tokens[column]);
    return rf8_execute(device, address, polls);
}

int rf8_get_logits(const struct rf8_device *device, const struct rf8_program *program,
                   uint32_t column, int32_t *logits) {
    if (column >= COLS) return RF8_OUT_OF_BOUNDS;
    const uint8_t *from =
        device->memory + program->logits_address + (size_t)column * program->logits_stride;
    for (uint32_t i = 0; i < program->vocab; i++) {
        uint32_t value = word(from + (size_t)4 * i);
        memcpy(&logits[i], &value, sizeof value);
    }
    return RF8_OK;
}

int rf8_start(const struct rf8_device *device, uint32_t address) {
    if (rf8_read_register(device, RF8_REG_STATUS) & RF8_STATUS_BUSY_MASK) return RF8_BUSY;
    RF8_BARRIER();
    rf8_write_register(device, RF8_REG_PROGRAM, address);
    rf8_write_register(device, RF8_REG_CONTROL, RF8_CONTROL_START_MASK);
    return RF8_OK;
}

int rf8_wait(const struct rf8_device *device, uint32_t polls) {
    for (uint32_t i = 0; i < polls; i++) {
        uint32_t status = rf8_read_register(device, RF8_REG_STATUS);
        if (status & RF8_STATUS_BUSY_MASK) continue;
        RF8_BARRIER();
        return status & RF8_STATUS_DONE_MASK ? RF8_OK : RF8_STOPPED;
    }
    return RF8_TIMEOUT;
}

int rf8_execute(const struct rf8_device *device, uint32_t address, uint32_t polls) {
    int result = rf8_start(device, address);
    return result == RF8_OK ? rf8_wait(device, polls) : result;
}

void rf8_stop(const struct rf8_device *device) {
    rf8_write_register(device, RF8_REG_CONTROL, RF8_CONTROL_STOP_MASK);
}

uint64_t rf8_read_counter(const struct rf8_device *device, uint32_t offset) {
    uint64_t low = rf8_read_register(device, offset);
    return low | (uint64_t)rf8_read_register(device, offset + 4) << 32;
}

const char *rf8_error_name(uint32_t code) {
#define NAMED(name, value) if (code == value) return name;
    RF8_ERRORS(NAMED)
#undef NAMED
    return "unknown error";
}

const char *rf8_result_name(int result) {
    static const char *const names[] = {
        "ok",           "wrong ID",      "wrong config", "bad magic", "bad version", "truncated",
        "bad checksum", "out of bounds", "not found",    "busy",      "timeout",     "stopped",
    };
    return result <= 0 && result >= RF8_STOPPED ? names[-result] : "unknown result";
}

void rf8_describe(const struct rf8_device *device, char text[RF8_DESCRIPTION_SIZE]) {
    uint32_t status = rf8_read_register(device, RF8_REG_STATUS);
    uint32_t address = rf8_read_register(device, RF8_REG_ERROR_ADDRESS);
    uint32_t code = (status & RF8_STATUS_CODE_MASK) >> RF8_STATUS_CODE_SHIFT;
    const char *name = rf8_error_name(code);
    size_t used = strlen(name);
    memcpy(text, name, used + 1);
    if (code == RF8_ERROR_NONE) return;
    memcpy(text + used, " at 0x", 6);
    for (size_t digit = 0; digit < 8; digit++)
        text[used + 6 + digit] = "0123456789abcdef"[address >> (28 - 4 * digit) & 15];
    text[used + 14] = 0;
}
