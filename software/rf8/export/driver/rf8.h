/* Driver of the RF8 accelerator: C99, no malloc, nothing of libc but string.h.
 *
 * Works on mapped registers, or through two functions of yours (a simulator, a debug probe). All
 * functions that can fail return RF8_OK or one of the codes below. Not for use by two threads at once. */
#ifndef RF8_H
#define RF8_H

#include <stddef.h>
#include <stdint.h>

#include "rf8_regs.h"

/* Makes writes to memory visible to the accelerator before what follows. */
#ifndef RF8_BARRIER
#define RF8_BARRIER() __sync_synchronize()
#endif

enum rf8_result {
    RF8_OK = 0,
    RF8_WRONG_ID = -1,      /* no RF8 accelerator, or another register map */
    RF8_WRONG_CONFIG = -2,  /* machine, image and rf8_regs.h are not of one config */
    RF8_BAD_MAGIC = -3,     /* no flat image */
    RF8_BAD_VERSION = -4,   /* a flat image of another version */
    RF8_TRUNCATED = -5,     /* shorter or longer than its header says */
    RF8_BAD_CHECKSUM = -6,  /* changed since it was written */
    RF8_OUT_OF_BOUNDS = -7, /* a section, buffer or argument lies outside image or memory */
    RF8_NOT_FOUND = -8,     /* no program for that many columns */
    RF8_BUSY = -9,          /* a program is running */
    RF8_TIMEOUT = -10,      /* still running after that many polls */
    RF8_STOPPED = -11       /* the program stopped with an error: rf8_describe tells which */
};

struct rf8_device {
    volatile uint32_t *registers; /* mapped registers; if NULL, the functions are called */
    uint32_t (*read)(void *context, uint32_t offset);
    void (*write)(void *context, uint32_t offset, uint32_t value);
    void *context;
    uint8_t *memory;      /* what the accelerator sees from address 0 on, coherent with it */
    uint64_t memory_size; /* bytes */
};

struct rf8_program { /* a flat image that has been checked and loaded; it must stay where it is */
    const uint8_t *image;
    uint32_t context; /* most tokens of a sequence */
    uint32_t vocab;
    uint32_t logits_address, logits_stride; /* bytes from one column's logits to the next */
    uint32_t entries;
    const uint8_t *entry_table;
};

/* ID and CONFIG of the device against rf8_regs.h. */
int rf8_open(const struct rf8_device *device);

/* Checks a flat image and copies its sections to memory. */
int rf8_load(const struct rf8_device *device, const void *image, size_t size,
             struct rf8_program *program);

/* Compute `columns` tokens that follow `position` earlier ones, whose keys and values are in memory;
 * with logits of all of them, or without. Looks at STATUS `polls` times at most. */
int rf8_run(const struct rf8_device *device, const struct rf8_program *program, uint32_t position,
            const uint32_t *tokens, uint32_t columns, int with_logits, uint32_t polls);
/* Logits of a column: program->vocab fixed-point numbers with 16 fraction bits. */
int rf8_get_logits(const struct rf8_device *device, const struct rf8_program *program,
                   uint32_t column, int32_t *logits);
/* Address of the program for so many columns, 0 if there is none. */
uint32_t rf8_entry(const struct rf8_program *program, uint32_t columns, int with_logits);

/* Start a program; wait until it ends, looking at STATUS `polls` times at most; both. */
int rf8_start(const struct rf8_device *device, uint32_t address);
int rf8_wait(const struct rf8_device *device, uint32_t polls);
int rf8_execute(const struct rf8_device *device, uint32_t address, uint32_t polls);
/* Stop what is running; it ends with RF8_ERROR_ABORTED. */
void rf8_stop(const struct rf8_device *device);

uint32_t rf8_read_register(const struct rf8_device *device, uint32_t offset);
void rf8_write_register(const struct rf8_device *device, uint32_t offset, uint32_t value);
uint64_t rf8_read_counter(const struct rf8_device *device, uint32_t offset); /* RF8_COUNTER_... */

/* Names of error codes (RF8_ERROR_...) and of results (RF8_OK, ...). */
const char *rf8_error_name(uint32_t code);
const char *rf8_result_name(int result);
/* How the last program ended, e.g. "BUS_READ at 0x00001040". */
#define RF8_DESCRIPTION_SIZE 48
void rf8_describe(const struct rf8_device *device, char text[RF8_DESCRIPTION_SIZE]);

#endif
