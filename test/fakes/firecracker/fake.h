/*
 * A stand-in for Firecracker: the real API on a real socket, with its state rules and its words, a
 * RAM that is really mapped, snapshots that are really written, and a small agent behind its vsock.
 * It runs no guest: what the agent knows lies in the RAM, so a page that a snapshot loses is
 * missed.
 */
#ifndef FAKE_H
#define FAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "json.h"

#define PAGE_BYTES 4096UL
#define HTTP_BODY_BYTES_MAX 51200U
#define DRIVES_MAX 8
#define TAP_BYTES_MAX 16
#define PATH_BYTES_MAX 256
#define VM_MIB_MAX 4096

/* Version as major * 10000 + minor * 100 + patch. */
extern unsigned fake_version;
extern const char *fake_version_text;
/* The runtime of evals; empty: there is none. */
extern char fake_python[];

enum run_state { NOT_STARTED, RUNNING, PAUSED };

struct drive {
  char id[40];
  char path[PATH_BYTES_MAX];
  bool read_only;
  int fd;
};

/* Its only network card. */
struct card {
  char id[40];
  char tap[TAP_BYTES_MAX];
  int fd;
};

/* What was configured, frozen and running. One VM a process. */
struct vm {
  enum run_state state;
  bool configured; /* anything that forbids a load */
  bool tracks;     /* the record of written pages is kept */
  unsigned vcpus;
  unsigned mem_mib;
  char kernel[PATH_BYTES_MAX];
  char initrd[PATH_BYTES_MAX];
  char boot_args[2048];
  char vsock[PATH_BYTES_MAX];
  bool entropy;
  struct card card; /* without an id: none */
  struct drive drives[DRIVES_MAX];
  size_t drive_count;
};
extern struct vm vm;

/* A request's answer: 204 without words. */
struct answer {
  unsigned status;
  struct buf body;
};
void answer_fault(struct answer *a, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* contract.c: checks method, path and body; false with the fault in `a`. */
struct endpoint;
const struct endpoint *contract_check(const char *method, const char *path,
                                      const struct json *body, struct answer *a);
typedef void handler_fn(const struct json *body, struct answer *a);
handler_fn *endpoint_handler(const struct endpoint *e);
const char *endpoint_name(const struct endpoint *e);

/* vm.c: what each request does. */
handler_fn do_describe, do_version, do_machine, do_cpu, do_boot_source, do_drive, do_patch_drive,
    do_net, do_vsock, do_entropy, do_action, do_vm, do_create, do_load;
/* A load or a start that failed ends the process once it is answered. */
extern bool vm_doomed;

/* ram.c */
bool ram_anonymous(unsigned mib);
bool ram_private(const char *path, unsigned mib, char why[256]);
size_t ram_bytes(void);
const uint8_t *ram_at(size_t offset);
/* As a guest writes: the pages are recorded. */
void ram_write(size_t offset, const void *data, size_t len);
bool ram_dump(const char *path, bool diff, char why[256]);
void ram_forget_record(void);

/* state.c: the saved state's file. */
bool state_save(const char *path, char why[256]);
bool state_load(const char *path, char why[256]);

/* tap.c: opens the card's tap as a VMM does, in its network namespace. */
bool tap_open(struct card *card, char why[256]);

/* vsock.c: connections of the host to the guest, and the guest's knock. */
bool vsock_open(char why[256]);
void vsock_close(void);
void vsock_run(bool running);
/* The guest is told that its connections are gone, which it finds when it is resumed. */
void vsock_reset(void);
/* After a pause: without a reset that was sent, nothing of the host arrives any more. */
void vsock_resume(void);
void vsock_knock(unsigned port);
/* To the connection that the agent has. */
void vsock_send(const void *data, size_t len);

/* agent.c: the guest's side of the channel. */
void agent_init(unsigned port);
unsigned agent_port(void);
void agent_restored(void);
void agent_connected(void);
void agent_received(const uint8_t *data, size_t len);

/* eval.c: a warm interpreter whose history is in the RAM. */
/* `reply` is the runtime's, or NULL when it is gone. */
typedef void eval_done_fn(uint32_t stream, const struct json *reply);
/* Starts it; what is sent then is run in order. False when there is none. */
bool eval_start(const char *hostname, eval_done_fn *done);
bool eval_started(void);
/* Stream 0: nobody waits for the answer. */
void eval_send(uint32_t stream, const char *code, size_t len);

/* disk.c: what a test has the guest do with its scratch disk. */
#define DISK_WORDS_MAX 128
bool disk_is_order(const char *code, size_t len);
/* `said`: what was read; or, when it is false, what is wrong. */
bool disk_obey(const char *code, size_t len, char said[DISK_WORDS_MAX]);
/* What was asked of the disk before the pause is done before the snapshot. */
void disk_settle(void);
/* What comes first when the guest runs again. */
void disk_resume(void);

/* faults.c: what the test wants to go wrong. */
void faults_read(void);
void faults_note(const char *method, const char *path, const char *body, size_t len);
/* Runs the fault of a step, if there is one: may never return. True with the words to answer. */
bool faults_before(const char *step, char words[256]);
bool faults_after(const char *step, char words[256]);

void set_nonblocking_fd(int fd);

#endif
