/* folder.h - what bundles and checkpoints need of folders: visit, copy a model, remove. For
 * ranker/model and training.
 *
 * Threads: any, on folders that nobody else changes.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_MODEL_FOLDER_H
#define MR_RANKER_MODEL_FOLDER_H

#include <stdbool.h>

#include "core/error.h"

/* path leads to the file, relative is its name below the root. Both are borrowed for the call. */
typedef mr_status (*mr_folder_visit)(void *context, const char *path, const char *relative,
                                     mr_error *err);

/* Visits every regular file below root but hidden ones, following links to files (Hugging Face
 * caches are made of them), never links to folders. INVALID when it is nested deeper than eight
 * folders. */
mr_status mr_folder_walk(const char *root, mr_folder_visit visit, void *context, mr_error *err);

/* A hard link of from when link_it is set and the file system allows it, else a copy. */
mr_status mr_folder_place(const char *from, const char *to, bool link_it, mr_error *err);

/* Makes `to` and places in it what a bundle needs of the Hugging Face folder `from`: not the
 * optimiser states, pickles and other formats that also lie there. */
mr_status mr_folder_place_model(const char *from, const char *to, bool link_it, mr_error *err);

/* Removes a folder that was made here, as far as it goes. Links are removed, not followed.
 */
void mr_folder_remove(const char *folder);

#endif
