/// Prose about what was asked, long enough to be interrupted: a few hundred words, or characters when the question is Chinese.
///
/// The same question gets the same text, so that an answer can be gone on with from a prefix.
struct ReadableParagraph: Sendable {
    /// Words with the space before them; in Chinese characters.
    let pieces: [String]

    /// How it is told: the first piece after a third of a second, one every 33 ms.
    static let script: ModelScript = {
        var script = ModelScript()
        script.firstDelay = 300_000_000
        script.gap = 33_000_000
        return script
    }()

    init(about question: String) {
        let isChinese = question.unicodeScalars.contains { (0x4E00...0x9FFF).contains($0.value) }
        let topic = Self.topic(of: question, length: isChinese ? 24 : 60)
        let sentences = isChinese ? Self.chinese : Self.english
        if isChinese {
            pieces = sentences.joined().replacing("%", with: topic.isEmpty ? "这个问题" : topic).map { String($0) }
        } else {
            let text = sentences.joined(separator: " ").replacing("%", with: topic.isEmpty ? "nothing in particular" : topic)
            pieces = text.split(separator: " ").enumerated().map { $0 == 0 ? String($1) : " " + $1 }
        }
    }

    private static func topic(of question: String, length: Int) -> String {
        let line = question.split(whereSeparator: \.isNewline).first { !$0.allSatisfy(\.isWhitespace) } ?? ""
        let words = line.split(whereSeparator: \.isWhitespace).joined(separator: " ")
        let short = words.prefix(length)
        return short.count < words.count ? short + "…" : String(short)
    }

    private static let english = [
        "You asked about “%”, and although no model is behind this answer, it will go on for a while as if one were.",
        "A question like this one is best taken apart first: what is given, what is wanted, and what would change your mind about either.",
        "Most of the confusion around it comes from mixing up what is measured with what is merely assumed, and the two drift apart quietly.",
        "Think of a river with a gate in it: the water does not hurry because somebody looks at it, but the gate decides who gets wet.",
        "There are at least three honest ways to look at “%”, and each of them leaves something out that the others notice at once.",
        "The practical one begins with a small experiment, done twice, by somebody who would rather be right than quick.",
        "The theoretical one begins with a definition, and it usually ends there too, a little tired but very tidy.",
        "The historical one collects what others got wrong, which is cheaper than getting it wrong again in your own name.",
        "Numbers help, as long as it is said where they were taken, under which load, and how often the odd one was thrown away.",
        "If something has to be kept from all this, keep the habit of asking what happens when the other side simply stops listening.",
        "That is, by the way, exactly what you can do here: interrupt these words in mid-sentence and see how soon they stop.",
        "Every word that follows would have been paid for at a real provider, whether or not anybody was still there to read it.",
        "A careful reader of “%” will also want to know which parts are stable and which change with the next release.",
        "The stable parts are few, they are written down, and they look obvious only after somebody has been hurt by their absence.",
        "The others deserve a test that fails when they change, rather than a paragraph that nobody will find again.",
        "It is tempting to add a picture at this point, yet a picture would only show what the sentence before it said already.",
        "So let us stay with words, one after another, at roughly the pace at which a person can follow them.",
        "Should you still be reading, then the stream has held so far, and every hop between that upstream and this screen did its part.",
        "None of this answers “%” in earnest, but it has the length, the rhythm and the patience of something that might.",
        "This is where the simulated answer ends by itself, which means that nobody interrupted it after all.",
    ]

    private static let chinese = [
        "您问的是“%”。这里并没有真正的模型在回答，不过这段话会像模型那样，一个字一个字地说下去。",
        "遇到这样的问题，最好先把它拆开：已知的是什么，想要的是什么，又有什么会让人改变看法。",
        "许多误解都来自把测量到的事实和想当然的假设混在一起，而这两者往往悄悄地越走越远。",
        "不妨想象一条装了闸门的河：水不会因为有人看着就流得更快，但闸门决定了谁会被打湿。",
        "看待“%”至少有三种诚实的角度，每一种都会漏掉另外两种一眼就能看见的东西。",
        "务实的做法是先做一个小实验，做两遍，并且交给一个宁愿正确也不贪快的人。",
        "理论的做法从定义开始，常常也在定义那里结束，有些疲惫，却十分整齐。",
        "历史的做法是收集别人犯过的错误，这比自己再犯一次要便宜得多。",
        "数字当然有用，只要说清楚是在哪里、在多大的负载下测得的，又丢掉了多少个异常值。",
        "如果只能记住一件事，那就记住去问：当另一端不再听的时候，会发生什么。",
        "顺便说一句，您现在就可以试试：在这句话中间打断它，看看文字多快会停下来。",
        "后面的每一个字，在真实的服务商那里都是要付费的，不管还有没有人在读。",
        "以上这些并没有认真地回答“%”，但它的长度、节奏和耐心，都像一个真正的回答。",
        "模拟的回答到这里自己结束了，这说明自始至终没有人打断它。",
    ]
}
