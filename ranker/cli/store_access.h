/* store_access.h - what the commands of `mixrank store` share: how a store is named and opened, and
 * which of its spaces is meant. Private to ranker/cli.
 *
 * A password comes by --password, by MIXRANK_STORE__PASSWORD or from the file that
 * MIXRANK_STORE__PASSWORD_FILE names, in this order, else from the URL. No message shows it, nor
 * the URL with it: names of stores in messages go through mr_store_access_shown.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_CLI_STORE_ACCESS_H
#define MR_RANKER_CLI_STORE_ACCESS_H

#include "core/arena.h"
#include "core/json.h"
#include "core/options.h"
#include "featurestore/store.h"
#include "ranker/pipeline/active.h"

typedef struct {
    const char *store, *password, *name_space;
    double map_gb;
} mr_store_access;

#define MR_STORE_ACCESS_DEFAULT               \
    {                                         \
        .name_space = "mixrank", .map_gb = 64 \
    }

/* Rows for the table of a command whose options have a member `access`. */
#define MR_STORE_ACCESS_OPTIONS(type)                                            \
    MR_OPTION_STRING("store", 's', "URL", type, access.store,                    \
                     "lmdb:PATH, a path, or redis://HOST:PORT (docs/store.md)"), \
        MR_OPTION_STRING("password", 0, "TEXT", type, access.password,           \
                         "of a Redis; better in MIXRANK_STORE__PASSWORD"),       \
        MR_OPTION_STRING("namespace", 0, "NAME", type, access.name_space, "prefix of all keys")

typedef enum { MR_STORE_READ, MR_STORE_CHANGE, MR_STORE_CREATE } mr_store_mode;

/* CHANGE: the store must be there; CREATE: an LMDB store is made. map_gb bounds what is written. */
MR_NODISCARD mr_status mr_store_access_open(mr_store **out, const mr_store_access *access,
                                            mr_store_mode mode, mr_error *err);

/* Sets options->password from the environment, unless it is set; the arena keeps it. For commands
 * that open their store themselves. */
MR_NODISCARD mr_status mr_store_access_password(mr_store_options *options, mr_arena *arena,
                                                mr_error *err);

/* The URL as messages may have it: "***" for a password. In the arena; never NULL. */
const char *mr_store_access_shown(const char *url, mr_arena *arena);

/* What commands call the three kinds of records: pictures are items in a space of their own. */
typedef enum { MR_KIND_ITEM, MR_KIND_USER, MR_KIND_IMAGE, MR_KIND_COUNT } mr_store_kind;
extern const char *const mr_store_kind_names[MR_KIND_COUNT + 1]; /* NULL ends */
mr_entity mr_store_kind_entity(mr_store_kind kind);

/* The spaces of a bundle's three kinds of records, 0 where it has none; read from bundle.json
 * alone. */
MR_NODISCARD mr_status mr_bundle_spaces(const char *folder, uint64_t spaces[MR_KIND_COUNT],
                                        mr_error *err);
void mr_active_spaces(const mr_active_bundle *bundle, uint64_t spaces[MR_KIND_COUNT]);

/* The space that a command is about: --space, that of --bundle, that of the active bundle, or the
 * only one that there is. INVALID or NOT_FOUND otherwise, and what there is. */
MR_NODISCARD mr_status mr_store_access_space(mr_store *store, const mr_store_access *access,
                                             mr_store_kind kind, const char *space,
                                             const char *bundle, uint64_t *out, mr_error *err);

/* Visits every space of an entity, ascending, or of all entities for MR_ENTITY_COUNT; the first
 * failure ends it. Spaces of an entity are listed before its first visit. */
typedef mr_status (*mr_space_visit)(void *context, mr_entity entity, uint64_t space, mr_error *err);
MR_NODISCARD mr_status mr_store_each_space(mr_store *store, mr_entity entity, mr_space_visit visit,
                                           void *context, mr_error *err);

#endif
