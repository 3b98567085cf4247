/* lmdb_header.h - a look at the two meta pages of an LMDB file before LMDB believes them.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_FEATURESTORE_LMDB_HEADER_H
#define MR_FEATURESTORE_LMDB_HEADER_H

/* What is wrong with the file behind a descriptor that may be read, NULL when nothing was found;
 * static storage. An empty file is a store that is being made: nothing is wrong with it. */
const char *mr_lmdb_header_fault(int fd);

#endif
