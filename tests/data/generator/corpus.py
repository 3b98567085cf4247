"""The text that the tokenizers are trained on. Written for this purpose, short on purpose.

It only has to make a few hundred sensible merges: common English word pieces, the words of
the reranker prompt (so that prompts stay short), a little code, and a few characters of other
scripts, so that some of them are tokens and most fall back to bytes.
"""

ENGLISH = """\
A ranking service puts the best item first. It reads the query, looks at every candidate and
gives each one a score. The candidates come from a search engine, and the user sees ten of them.
The shop sells a red kettle, a blue kettle, a wooden chair, a garden chair and a small table.
The red kettle boils water in three minutes and switches itself off when the water is hot.
The garden chair is made of painted steel, it folds flat and it can stay outside in the rain.
This editor opens large text files, shows the lines with colours and can search with a pattern.
The package contains the library, the headers and the documentation of the programming interface.
A user who bought a tent last week is more likely to want a sleeping bag than another tent.
What is the capital of the country? The capital of the country is the city on the river.
How do I replace the battery of the watch? Open the back of the case and lift the old battery.
They're sure that it's late, we've seen it, I'm here, you'll find it and she'd say that it isn't.
The model was trained on pairs of queries and documents, and it answers with one word.
Running, walking, reading, writing, ranking, training, searching, finding, ordering and sorting.
The first reader reads the document, the second reader rates it, and the third one decides.
Prices start at 12 and end at 4999; 100, 200, 300, 2024, 2025 and 1000000 are numbers too.
Information about the item: title, description, section, maintainer, homepage and size.
The weather in the mountains changes quickly, so bring a warm jacket and good walking shoes.
There are other places where other people gather, rather far from the weather of the north.
The interest of the listener rests on the best of the test results, the rest is for the guests.
"""

PROMPTS = """\
Judge whether the Document meets the requirements based on the Query and the Instruct provided.
Note that the answer can only be "yes" or "no".
Given a web search query, retrieve relevant passages that answer the query
<Instruct>: Given a web search query, retrieve relevant passages that answer the query
<Query>: how to boil water
<Document>: The kettle boils water in three minutes.
Instruct: retrieve relevant items
Query: garden chair
Item information: red kettle
Rank the items for the user. Query: table
system
user
assistant
yes
no
yes
no
yes
no
yes
no
"""

CODE = """\
int main(void)
{
    for (int i = 0; i < n; i++) {
        sum += a[i] * b[i];
        if (sum > limit)
            return -1;
    }
    return 0;
}
def score(query, document):
    return model(query + document)[0]
        self.value = {"key": [1, 2, 3], "name": "item"}
https://example.org/search?q=kettle&page=2
<html><body><p>text</p></body></html>
"""

OTHER_SCRIPTS = """\
El servicio ordena los artículos según la consulta del usuario. ¿Qué artículo es el mejor?
Der Dienst ordnet die Artikel nach der Anfrage des Nutzers. Für größere Mengen wird es schön.
Le service classe les articles selon la requête de l'utilisateur, c'est-à-dire très vite.
Сервис сортирует товары по запросу пользователя. Какой товар лучше?
Η υπηρεσία ταξινομεί τα προϊόντα.
搜索服务按照查询对商品进行排序。中文搜索 商品 商品
検索サービスは商品を並べ替えます。日本語 商品
검색 서비스는 상품을 정렬합니다. 한국어 상품
خدمة البحث ترتب المنتجات
खोज सेवा उत्पादों को क्रम देती है
บริการค้นหา
😀 😀 😃 👍 👍
"""

# Enough of these to become tokens: groups of digits, runs of spaces, blank lines, contractions.
SHAPES = """\
12 123 12 123 45 456 45 456 67 678 67 314 159 265 314 159 265
x1  2   3    4        5                end
\t\tif\n\n\n\telse\r\n\r\n  done;\n\n
it's he's she's I'm I'd you'll we'll they're you're I've we've don't isn't
""" * 3

# Byte-level tokenizers see line breaks; that is where "\n" + indentation tokens come from.
BYTE_LEVEL = [ENGLISH, PROMPTS, CODE, SHAPES, OTHER_SCRIPTS]


def sentencepiece_lines() -> list[str]:
    """The same text as SentencePiece trainers see it: one sentence a line, no line breaks.

    Tabs and characters seen once are left out, as SentencePiece's normaliser and its character
    coverage do: these are the ones that must fall back to bytes. (The trainer's own
    limit_alphabet breaks ties in hash order: another vocabulary on every run.)
    """
    lines = "".join(BYTE_LEVEL).replace("\t", "").splitlines()
    count: dict[str, int] = {}
    for line in lines:
        for char in line:
            count[char] = count.get(char, 0) + 1
    return ["".join(c for c in line if count[c] > 1) for line in lines]
