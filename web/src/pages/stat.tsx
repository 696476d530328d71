// One number with its name; a few of them stand in a row.
import type { VNode } from "preact";

export function Stat({ name, value }: { name: string; value: string }): VNode {
  return (
    <div class="stat">
      <span>{name}</span>
      <strong>{value}</strong>
    </div>
  );
}
