/* rpc_reflection.h - grpc.reflection.v1 and v1alpha: what grpcurl and its like ask first.
 *
 *     mr_rpc_reflection_new(&reflection, (mr_bytes){mr_proto_descriptors,
 * mr_proto_descriptors_len}, &err); n += mr_rpc_reflection_methods(reflection, methods + n);
 *
 * Threads: read-only once made. Free it after the server.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_SERVICE_RPC_REFLECTION_H
#define MR_RANKER_SERVICE_RPC_REFLECTION_H

#include "ranker/service/rpc_server.h"

typedef struct mr_rpc_reflection mr_rpc_reflection;

#define MR_RPC_REFLECTION_METHODS 2

/* set: a serialised FileDescriptorSet with all imports, borrowed; all its services are listed. */
MR_NODISCARD mr_status mr_rpc_reflection_new(mr_rpc_reflection **out, mr_bytes set, mr_error *err);
void mr_rpc_reflection_free(mr_rpc_reflection *reflection); /* NULL is fine */
size_t mr_rpc_reflection_methods(mr_rpc_reflection *reflection,
                                 mr_rpc_method out[MR_RPC_REFLECTION_METHODS]);

#endif
