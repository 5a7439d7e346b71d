// Which engines are certified to lose at most a point against the baseline, effx/analysis/losses.py.

const LOSSES = {
  certified: ['✓', 'loses at most 1 point of the baseline\'s score, with 95 % for all certified engines together, however you choose among them'],
  'not proven': ['?', 'a loss of more than 1 point is not ruled out by these rows, whatever the score says'],
  'loses more': ['✗', 'loses more than 1 point, with 95 % for each engine alone'],
  unavailable: ['⊘', 'a gate failed or predictions are missing, so no loss is stated'],
  'not tested': ['·', 'not tested, as the tests of so many engines take long'],
  baseline: ['=', 'the engine that losses are relative to'],
};

const lossClass = (status) => `loss ${status.replace(' ', '-')}`;

function lossChip(row) {
  if (!row.loss || !row.latest) return '–';
  const [status, explanation] = row.loss;
  return el('span', { class: lossClass(status), title: explanation }, `${LOSSES[status][0]} ${status}`);
}

// The numbers of engines of a group by status, each with a sentence.
function lossSummary(group) {
  const counts = new Map(Object.keys(LOSSES).map((status) => [status, 0]));
  for (const [status] of group.losses) counts.set(status, counts.get(status) + 1);
  return el('ul', { class: 'losses' }, [...counts].filter(([status, number]) => number && status !== 'baseline').map(([status, number]) => el('li', {},
    el('span', { class: lossClass(status) }, `${LOSSES[status][0]} ${status}: ${number}`), soft(`${LOSSES[status][1]}.`))));
}
