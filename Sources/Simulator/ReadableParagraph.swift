/// Prose about the user's question, long enough to be interrupted: a few hundred words, or characters if the question is in Chinese.
///
/// The same question always gives the same text, so an answer can be continued from a prefix.
struct ReadableParagraph: Sendable {
    /// Words with their leading space, or Chinese characters.
    let pieces: [String]

    /// The pace of a paragraph: the first piece after 300 ms, then one every 33 ms.
    static let script: ModelScript = {
        var script = ModelScript()
        script.firstDelay = 300_000_000
        script.gap = 33_000_000
        return script
    }()

    /// - Parameter question: Its first line is inserted into the text as the topic. One Chinese character selects the Chinese text.
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

    /// The first line of the question that is not blank, cut to `length` characters.
    private static func topic(of question: String, length: Int) -> String {
        let line = question.split(whereSeparator: \.isNewline).first { !$0.allSatisfy(\.isWhitespace) } ?? ""
        let words = line.split(whereSeparator: \.isWhitespace).joined(separator: " ")
        let short = words.prefix(length)
        return short.count < words.count ? short + "…" : String(short)
    }

    private static let english = [
        "You asked about “%”. This answer comes from the Sluice simulator and not from a language model, so its text is fixed.",
        "Its purpose is to look like a real streamed answer: it has a similar length, a similar pace and a similar structure.",
        "The simulator sends one word at a time, with the first word after three tenths of a second and about thirty words per second.",
        "The worker reads these words from the simulator, groups them into small batches and appends every batch to an event log in Redis.",
        "The same batch is published on an output channel, and a gateway forwards it to every client that follows this job.",
        "You can use this paragraph to test an interrupt: press the stop button in the middle of a sentence and watch the text end.",
        "An interrupt closes the connection between the worker and the upstream, so the provider stops generating and charging tokens.",
        "The text that arrived before the interrupt stays in the log, together with a final event that says why the job ended.",
        "If the gateway restarts while you read about “%”, your client connects again and receives the missing events from the log.",
        "If the worker fails, its lease expires after a short time and another worker takes over the job with a new attempt.",
        "A provider that supports prefixes then continues the answer where it stopped, and the client sees one uninterrupted text.",
        "Other providers start the answer again, and the client receives an event that tells it to discard the earlier text.",
        "Model names that begin with sim request other behaviour, such as errors, pauses, tool calls, reasoning and broken connections.",
        "For example, the model sim-n1000-g20 sends one thousand numbered words with twenty milliseconds between two consecutive words.",
        "Numbered words are useful in automated tests, because a missing or repeated word can be found by looking at its number.",
        "The simulator also records every request, including the time of the first token and the time when its client disconnected.",
        "These records show how long an interrupt takes from the click in the browser to the closed connection at the provider.",
        "None of these sentences is a real answer to the question about “%”, but they follow the same path as a real one.",
        "Configure an upstream with the URL and the key of a provider to replace this simulated text with the output of a model.",
        "This is the last sentence of the simulated answer. It ended with a finish reason, so this job was not interrupted.",
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
