/* rpc_descriptors.h - an index over a serialised FileDescriptorSet: files by name and by symbol.
 *
 * Reads the few fields of descriptor.proto that it needs by hand, so that files are handed out as
 * the bytes that protoc wrote, options and all. Threads: read-only once open.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_SERVICE_RPC_DESCRIPTORS_H
#define MR_RANKER_SERVICE_RPC_DESCRIPTORS_H

#include "core/arena.h"
#include "core/bytes.h"
#include "core/error.h"

typedef struct mr_rpc_descriptors mr_rpc_descriptors;

/* set is borrowed for the life of the index. CORRUPT when it is no FileDescriptorSet, or imports
 * what it does not hold. */
MR_NODISCARD mr_status mr_rpc_descriptors_open(mr_rpc_descriptors **out, mr_bytes set,
                                               mr_error *err);
void mr_rpc_descriptors_close(mr_rpc_descriptors *descriptors); /* NULL is fine */

/* Position of a file; -1 when there is none. */
int mr_rpc_descriptors_file(const mr_rpc_descriptors *descriptors, const char *name);
/* Of the file that defines "package.Message", ".Message.field", ".Service.Method", ... */
int mr_rpc_descriptors_symbol(const mr_rpc_descriptors *descriptors, const char *name);
/* The file's bytes and those of all that it imports, itself first. At most `most`. */
size_t mr_rpc_descriptors_closure(const mr_rpc_descriptors *descriptors, int file, mr_bytes *out,
                                  size_t most);
/* Full names, in the order of the files; NULL beyond the last. */
const char *mr_rpc_descriptors_service(const mr_rpc_descriptors *descriptors, size_t i);
bool mr_rpc_descriptors_is_message(const mr_rpc_descriptors *descriptors, const char *name);

#define MR_RPC_DESCRIPTORS_MAX_FILES 64

#endif
