/* tokenizer_nfc.h - which characters NFC has to look at. Private to the tokenizer.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_ENGINE_TOKENIZER_NFC_H
#define MR_ENGINE_TOKENIZER_NFC_H

#include <stdint.h>

/* Sets MR_CLASS_COMPOSES in classes[0x110000] for every character that NFC may change, reorder or
 * join to the one before it. A character without it always begins a stretch of its own. */
void mr_tok_nfc_mark(uint8_t *classes);

#endif
