/* encode.h - one run of `mixrank encode`: what its stages share. Private to ranker/cli.
 *
 * Versions decide what is done. A run over a file whose digest the store already knows for this
 * space uses the same version again: records that are there, whole and at that version are skipped
 * before they are encoded, so a run that was killed goes on where it was and a second run is quick.
 * A file that changed, or another --dtype, gets the next version, so that every record is replaced;
 * records of items that are no longer in the file stay. Each batch is one transaction.
 *
 * A user's record is made of item records. So the version of the items, and whether their run was
 * finished, belong to what a run over users is made from: users that were encoded from half a
 * catalogue are made again when it is whole.
 *
 * Pictures are a run of their own, in the image encoder's space. What changes a picture without
 * changing the items file is not noticed: --version makes them anew.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_CLI_ENCODE_H
#define MR_RANKER_CLI_ENCODE_H

#include "core/arena.h"
#include "core/hash.h"
#include "featurestore/store.h"
#include "ranker/cli/catalogue.h"
#include "ranker/cli/encode_parts.h"
#include "ranker/model/parts.h"

typedef struct {
    const char *bundle, *store, *items, *users;
    int64_t batch, threads, version;
    double map_gb;
    int dtype; /* mr_record_dtype */
    bool json, quiet, exact;
} mr_encode_options;

typedef struct {
    uint64_t read, encoded, skipped, empty, stale, text_tokens, truncated, unknown_items, refused,
        removed;
} mr_encode_counts;

/* What a store remembers of the last run over an entity in a space. */
typedef struct {
    char digest[MR_SHA256_HEX + 64]; /* of the file and of how its records are made */
    uint64_t version;                /* 0: there was no such run */
    bool complete;
} mr_encode_note;

/* Of more refused pictures than these only the number is told. */
#define MR_ENCODE_REFUSALS_KEPT 1000

typedef struct {
    const mr_encode_options *opt;
    const mr_bundle *bundle;
    mr_store *store;
    mr_text_encoder *encoder;      /* NULL: vectors from outside */
    mr_user_encoder *user_encoder; /* NULL: users are their items' vectors */
    mr_encode_note note;           /* of the run under way */
    char note_name[64];
    uint64_t version;
    mr_encode_counts counts;
    /* One batch. */
    mr_arena arena;
    mr_catalogue_item *rows; /* [batch] */
    size_t n_rows;
    /* Pictures that could not be used, told at the end. */
    mr_arena refusals_arena;
    const char *refusals[MR_ENCODE_REFUSALS_KEPT];
    size_t n_refusals;
} mr_encode_state;

/* encode_run.c. Chooses the version and notes that the run has begun; then, that it is whole. */
MR_NODISCARD mr_status mr_encode_begin_run(mr_encode_state *state, mr_entity entity, uint64_t space,
                                           const char *path, mr_error *err);
MR_NODISCARD mr_status mr_encode_end_run(mr_encode_state *state, mr_error *err);

/* A visit of mr_store_fetch: which of the ids have a whole record at this version or a later one.
 */
typedef struct {
    uint64_t version;
    bool *there; /* one per id */
} mr_encode_known;
void mr_encode_on_known(void *context, size_t i, mr_bytes record);

/* Makes a record in the arena, of values NULL a tombstone; id is borrowed. */
MR_NODISCARD mr_status mr_encode_record(mr_encode_state *state, mr_str id, uint64_t space,
                                        const float *values, uint16_t tokens, size_t dim,
                                        mr_store_put_item *out, mr_error *err);
MR_NODISCARD mr_status mr_encode_put(mr_encode_state *state, mr_entity entity, uint64_t space,
                                     const mr_store_put_item *items, size_t n, mr_error *err);
/* 0 for standard input and what cannot be looked at: a bar without a share. */
uint64_t mr_encode_file_size(const char *path);

/* The stages. */
MR_NODISCARD mr_status mr_encode_items(mr_encode_state *state, mr_error *err);
MR_NODISCARD mr_status mr_encode_users(mr_encode_state *state, mr_error *err);
/* Pictures of the items file's "image" members: paths from the file's own folder. One that is not
 * there, broken or hostile costs its item the picture and the run nothing. An item
 * that has no usable picture any more loses the one that an earlier version put there. */
MR_NODISCARD mr_status mr_encode_images(mr_encode_state *state, mr_error *err);

/* One pass over the items file, batch by batch: the run begins, rows are read, batches flushed, the
 * run ends. */
typedef struct {
    const char *label; /* of the progress bar */
    uint64_t space;    /* of the records */
    size_t batch;      /* rows; at most --batch */
    /* Looks at a row that was just read; may be NULL. */
    mr_status (*check)(mr_encode_state *state, const json_t *row, mr_error *err);
    mr_status (*flush)(mr_encode_state *state, void *context,
                       mr_error *err); /* empties the batch */
    void *context;
} mr_encode_pass;
/* encode_items.c. */
MR_NODISCARD mr_status mr_encode_items_pass(mr_encode_state *state, const mr_encode_pass *pass,
                                            mr_error *err);
/* Visits what the store has of the batch's items in a space. */
MR_NODISCARD mr_status mr_encode_fetch_batch(mr_encode_state *state, uint64_t space,
                                             mr_store_visit visit, void *context, mr_error *err);

#endif
