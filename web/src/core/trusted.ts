// The one policy of our own under Trusted Types: script addresses, and only of our own files.

interface Policy {
  createScriptURL(url: string): unknown;
}

const trustedTypes = (globalThis as { trustedTypes?: { createPolicy(name: string, rules: object): Policy } }).trustedTypes;

function ownFile(url: string): string {
  const target = new URL(url, document.baseURI);
  if (target.origin !== location.origin) throw new TypeError(`script address "${url}" is foreign; only files of this site may run`);
  return target.href;
}

const policy: Policy = trustedTypes?.createPolicy("rorqual", { createScriptURL: ownFile }) ?? { createScriptURL: ownFile };

export function trustedScript(url: string): string {
  return policy.createScriptURL(url) as string;
}
