/* bundle_encoders.h - the "encoders" and "spaces" of bundle.json. Private to ranker/model.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_MODEL_BUNDLE_ENCODERS_H
#define MR_RANKER_MODEL_BUNDLE_ENCODERS_H

#include "ranker/model/parts.h"

/* Fills bundle->item and bundle->user from bundle->root, checks that "spaces" holds what their
 * descriptions hash to, and looks at the headers of the encoders' weights: MR_NOT_FOUND or
 * CORRUPT when they are not there or not whole, bundle->untrained when they are random. */
mr_status mr_bundle_read_encoders(mr_bundle *bundle, mr_error *err);

#endif
