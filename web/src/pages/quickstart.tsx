// Three ways to call the API, with the reader's own address and, once made, key.
import type { VNode } from "preact";
import { useState } from "preact/hooks";
import { ROOT } from "../core/api.ts";
import { me, model } from "../core/session.ts";
import { t } from "../i18n/index.ts";
import { Prose } from "../render/prose.tsx";
import { CopyButton } from "../ui/copy.tsx";
import { Segmented } from "../ui/segmented.tsx";

type Client = "curl" | "python" | "javascript";

export function QuickStart({ secret }: { secret: string | null }): VNode {
  const [client, setClient] = useState<Client>("curl");
  const base = new URL(`${ROOT}v1`, location.href).href;
  // A local server asks for no key, but the clients want some text in its place.
  const key = secret ?? (me.value?.mode === "local" ? "none" : `<${t().yourKey}>`);
  const code = SNIPPETS[client](base, key, model.value?.id ?? "MODEL");
  return (
    <section class="card">
      <header class="card-head">
        <h2>{t().quickStart}</h2>
        <Segmented
          label={t().quickStart}
          value={client}
          options={[
            { value: "curl", label: "curl" },
            { value: "python", label: "Python" },
            { value: "javascript", label: "JavaScript" },
          ]}
          onChange={setClient}
        />
      </header>
      <p class="muted">{t().quickStartLead}</p>
      <div class="endpoint">
        <code>{base}</code>
        <CopyButton text={base} />
      </div>
      <Prose text={`\`\`\`${client === "curl" ? "bash" : client}\n${code}\n\`\`\``} />
    </section>
  );
}

const SNIPPETS: Record<Client, (base: string, key: string, model: string) => string> = {
  curl: (base, key, model) => `curl ${base}/chat/completions \\
  -H "Authorization: Bearer ${key}" \\
  -H "Content-Type: application/json" \\
  -d '{"model": "${model}", "stream": true,
       "messages": [{"role": "user", "content": "Solve 6x+12=66 for x."}]}'`,
  python: (base, key, model) => `from openai import OpenAI

client = OpenAI(base_url="${base}", api_key="${key}")
stream = client.chat.completions.create(
    model="${model}",
    messages=[{"role": "user", "content": "Solve 6x+12=66 for x."}],
    stream=True,
)
for chunk in stream:
    print(chunk.choices[0].delta.content or "", end="")`,
  javascript: (base, key, model) => `import OpenAI from "openai";

const client = new OpenAI({ baseURL: "${base}", apiKey: "${key}" });
const answer = await client.chat.completions.create({
  model: "${model}",
  messages: [{ role: "user", content: "Solve 6x+12=66 for x." }],
});
console.log(answer.choices[0].message.content);`,
};
