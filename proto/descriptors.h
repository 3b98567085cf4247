/* descriptors.h - the services' own descriptions, made at build time, for reflection.
 *
 * A serialised google.protobuf.FileDescriptorSet of mixrank/v1/ranking.proto, of the health and
 * reflection services, and of what they import.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_PROTO_DESCRIPTORS_H
#define MR_PROTO_DESCRIPTORS_H

#include <stddef.h>

extern const unsigned char mr_proto_descriptors[];
extern const size_t mr_proto_descriptors_len;

#endif
